"""What every result file holds beside its figures: enough to know what was run where, and to run it again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hetlora.errors import DataError


class Machine(BaseModel):
    """See `harness.machine`."""

    processor: str
    cores: int = Field(ge=1)
    memory_bytes: int = Field(ge=1)
    system: str
    python: str


class ResultFile(BaseModel):
    """One run of one question; its figures stand beside these fields."""

    model_config = ConfigDict(extra="allow")

    question: str
    command: str = Field(pattern=r"^hetlora bench ")
    seed: int
    started_at: datetime
    commit: str | None  # None of an installed package, whose version is in `versions`
    machine: Machine
    load_average_before: float
    versions: dict[str, str] = Field(min_length=1)

    @property
    def figures(self) -> dict[str, Any]:
        """What the question came to."""
        return self.model_extra or {}


def parse_result(text: str, what: str) -> ResultFile:
    """Read a result file, or the line that a benchmark ends with.

    Raises:
        DataError: no JSON, a field is missing, or a number is none.
    """
    try:
        return ResultFile.model_validate(json.loads(text, parse_constant=_no_number))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{what} is no result of a benchmark", got=f"{place}: {first['msg']}") from error
    except ValueError as error:
        raise DataError(f"{what} is no result of a benchmark", got=error) from error


def read_result(path: Path) -> ResultFile:
    """The result in a file; errors as in `parse_result`."""
    return parse_result(path.read_text(encoding="utf-8"), path.name)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no figure")
