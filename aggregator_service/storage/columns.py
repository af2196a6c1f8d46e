"""What the columns of the tables hold beside numbers and texts."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from sqlalchemy import JSON, DateTime, Dialect, Enum
from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.types import TypeDecorator


class AbandonedFor(StrEnum):
    """Why a round ended without a commit; words of Prometheus' label `reason`, too."""

    WINDOW = "window"  # the report window closed over too few updates
    STOP = "stop"  # an operator stopped the run
    AGGREGATION = "aggregation"  # its updates could not be aggregated, or read back, or pass screens


class MaskingStage(StrEnum):
    """What a round with masks waits for, once its cohort is fixed (ADR 0040)."""

    SHARES = "shares"
    UPLOADS = "uploads"
    REVEALS = "reveals"


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes, stored in UTC (SQLite keeps no time zone)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


class MessageJson(TypeDecorator[BaseModel]):
    """A pydantic message, stored as JSON."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: type[BaseModel]) -> None:
        super().__init__(none_as_null=True)
        self.kind = kind

    def process_bind_param(self, value: BaseModel | None, dialect: Dialect) -> Any:
        return value.model_dump(mode="json") if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> BaseModel | None:
        return self.kind.model_validate(value) if value is not None else None


def word(kind: type[StrEnum]) -> Enum:
    """One of the words of an enumeration, stored as text."""
    return Enum(kind, native_enum=False, length=16, values_callable=lambda words: [w.value for w in words])


def state_column(kind: type[StrEnum]) -> MappedColumn[Any]:
    """The column of a state machine, among the first of its table."""
    return mapped_column(word(kind), sort_order=-2)
