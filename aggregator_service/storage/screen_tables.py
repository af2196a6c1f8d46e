"""The tables of screens (ADR 0041). States change only through `transitions.py`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.columns import state_column
from aggregator_service.storage.tables import Base, ByteCount, StatefulRow
from hetlora.states import QuarantineState


class QuarantineRow(StatefulRow):
    """The update of the assignment of the same id, which a screen took out of its round."""

    __tablename__ = "quarantines"
    __table_args__ = (
        Index("ix_quarantines_run", "run_id", "id"),
        Index("ix_quarantines_device", "device_id", "id"),
        Index("ix_quarantines_state", "state", "id"),
        Index("ix_quarantines_judged", "judged"),
        Index("ix_quarantines_dropped", "dropped", "quarantined_at"),
    )
    subject = "quarantine"

    id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True, sort_order=-3)
    state: Mapped[QuarantineState] = state_column(QuarantineState)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    quarantined_at: Mapped[datetime]
    screen: Mapped[str]
    finding: Mapped[str]  # in words; the reason is that of the newest state
    figures: Mapped[dict[str, float]]  # value, median, limit
    sha256: Mapped[str]
    size_bytes: Mapped[ByteCount]
    dropped: Mapped[bool] = mapped_column(default=False)  # from the store
    judged: Mapped[bool] = mapped_column(default=False)  # whether it was asked what it means for the device


class ScreenPassRow(Base):
    """An assignment whose update passed where others of its round did not; it is not judged again."""

    __tablename__ = "screen_passes"

    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), primary_key=True)


class SuspensionRuleRow(Base):
    """After how many quarantines a device of a population is suspended; without a row it never is."""

    __tablename__ = "suspension_rules"

    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), primary_key=True)
    quarantines: Mapped[int]
    within_updates: Mapped[int]
