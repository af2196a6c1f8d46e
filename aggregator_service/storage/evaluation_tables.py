"""The tables of evaluation tasks (ADR 0015). States change only through `transitions.py`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.columns import MessageJson, state_column
from aggregator_service.storage.tables import StatefulRow
from hetlora.messages.evaluation import EvaluationFigures, EvaluationReport
from hetlora.states import EvaluationAssignmentState, EvaluationState


class EvaluationRow(StatefulRow):
    """The evaluation of the adapter version of the same id, which so has one at most."""

    __tablename__ = "evaluations"
    __table_args__ = (Index("ix_evaluations_state_window", "state", "window_closes_at"),)
    subject = "evaluation"

    id: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"), primary_key=True, sort_order=-3)
    state: Mapped[EvaluationState] = state_column(EvaluationState)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    devices: Mapped[int]  # reports that end it
    window_closes_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    figures: Mapped[EvaluationFigures | None] = mapped_column(MessageJson(EvaluationFigures))


class EvaluationAssignmentRow(StatefulRow):
    """A device's part in an evaluation; it has one, whatever becomes of it."""

    __tablename__ = "evaluation_assignments"
    __table_args__ = (
        UniqueConstraint("evaluation_id", "device_id"),
        Index("ix_evaluation_assignments_device_state", "device_id", "state"),
        Index("ix_evaluation_assignments_state_lease", "state", "lease_expires_at"),
    )
    subject = "evaluation_assignment"

    state: Mapped[EvaluationAssignmentState] = state_column(EvaluationAssignmentState)
    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    max_rank: Mapped[int]  # as offered
    lease_expires_at: Mapped[datetime]
    rank: Mapped[int | None]  # taken at the start
    adapter_sha256: Mapped[str | None]  # what was sent
    # Until its evaluation ends, whose figures take it in.
    report: Mapped[EvaluationReport | None] = mapped_column(MessageJson(EvaluationReport))
