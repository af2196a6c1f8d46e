"""The figures of a round, made of its assignments each time they are asked for: nothing is kept twice."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, ColumnElement, bindparam, func, select, type_coerce
from sqlalchemy.orm import Session

from aggregator_service.privacy.ledger import spent_by
from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.identifiers import version_id_of
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow
from hetlora.messages.figures import RankShare, RoundFigures
from hetlora.states import AssignmentState, RoundState

# Summed by the database: to read a hundred reports of each of a hundred rounds takes half a second.
_MEANS: Final = ("training_seconds", "first_loss", "last_loss")


def _told(name: str) -> ColumnElement[float]:
    told: ColumnElement[float] = type_coerce(AssignmentRow.report, JSON)[name].as_float()
    return told


_BY_RANK: Final = (
    select(
        AssignmentRow.rank,
        func.count().label("updates"),
        func.count(_told("last_loss")).label("reports"),
        func.sum(AssignmentRow.update_bytes).label("update_bytes"),
        func.sum(_told("downloaded_bytes")).label("downloaded_bytes"),
        *(func.sum(_told(name)).label(name) for name in _MEANS),
    )
    .where(AssignmentRow.round_id == bindparam("round"), AssignmentRow.state == AssignmentState.ACCEPTED)
    .group_by(AssignmentRow.rank)
    .order_by(AssignmentRow.rank)
)


def round_figures(session: Session, row: RoundRow) -> RoundFigures:
    """What one attempt at a round came to, or has come to so far."""
    sums = session.execute(_BY_RANK, {"round": row.id}).all()
    reports = sum(own.reports for own in sums)
    means = {name: sum(getattr(own, name) or 0 for own in sums) / reports for name in _MEANS if reports}
    version = _version_of(session, row)
    evaluation = None if version is None else session.get(EvaluationRow, version.id)
    held_out = None if evaluation is None else evaluation.figures
    return RoundFigures(
        round_index=row.round_index,
        attempt=row.attempt,
        state=row.state,
        version=None if version is None else version.id,
        started_at=row.started_at,
        ended_at=row.ended_at,
        asked=session.scalar(select(func.count()).where(AssignmentRow.round_id == row.id)) or 0,
        accepted=sum(own.updates for own in sums),
        ranks=tuple(RankShare(rank=own.rank or 0, updates=own.updates) for own in sums),
        downloaded_bytes=sum(int(own.downloaded_bytes or 0) for own in sums),
        uploaded_bytes=sum(int(own.update_bytes or 0) for own in sums),
        training_seconds=means.get("training_seconds"),
        first_loss=means.get("first_loss"),
        last_loss=means.get("last_loss"),
        evaluation_loss=None if held_out is None else held_out.loss,
        evaluation_accuracy=None if held_out is None else held_out.accuracy,
        privacy=None if version is None else spent_by(session, row.run_id, row.round_index),
        figures={} if version is None else version.figures or {},
    )


def _version_of(session: Session, row: RoundRow) -> AdapterVersionRow | None:
    """What a round made, if it committed."""
    if row.state is not RoundState.COMMITTED:
        return None
    return session.get(AdapterVersionRow, version_id_of(row.run_id, row.round_index))
