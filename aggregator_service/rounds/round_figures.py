"""The figures of rounds, made of their assignments each time they are asked for: nothing is kept twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import JSON, ColumnElement, func, select, type_coerce
from sqlalchemy.orm import Session

from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.identifiers import version_id_of
from aggregator_service.storage.privacy_tables import PrivacySpendRow
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow
from hetlora.messages.figures import RankShare, RoundFigures
from hetlora.messages.privacy import PrivacySpent
from hetlora.states import AssignmentState, RoundState

_MEANS: Final = ("training_seconds", "first_loss", "last_loss")


def _told(name: str) -> ColumnElement[float]:
    told: ColumnElement[float] = type_coerce(AssignmentRow.report, JSON)[name].as_float()
    return told


# Summed by the database: to read a hundred reports of each of a hundred rounds takes half a second.
_BY_RANK: Final = (
    select(
        AssignmentRow.round_id,
        AssignmentRow.rank,
        func.count().label("updates"),
        func.count(_told("last_loss")).label("reports"),
        func.sum(AssignmentRow.update_bytes).label("update_bytes"),
        func.sum(_told("downloaded_bytes")).label("downloaded_bytes"),
        *(func.sum(_told(name)).label(name) for name in _MEANS),
    )
    .where(AssignmentRow.state == AssignmentState.ACCEPTED)
    .group_by(AssignmentRow.round_id, AssignmentRow.rank)
    .order_by(AssignmentRow.round_id, AssignmentRow.rank)
)


def figures_of(session: Session, rows: Sequence[RoundRow]) -> list[RoundFigures]:
    """What attempts at rounds came to, or have come to so far; a few questions for all of them."""
    ids = [row.id for row in rows]
    by_rank = defaultdict[str, list[Any]](list)
    for own in session.execute(_BY_RANK.where(AssignmentRow.round_id.in_(ids))):
        by_rank[own.round_id].append(own)
    count = select(AssignmentRow.round_id, func.count()).group_by(AssignmentRow.round_id)
    asked = {round_id: own for round_id, own in session.execute(count.where(AssignmentRow.round_id.in_(ids)))}
    made = {row.id: version_id_of(row.run_id, row.round_index) for row in rows if _is_committed(row)}
    versions = _by_id(session, AdapterVersionRow, [*made.values()])
    evaluations = _by_id(session, EvaluationRow, [*made.values()])
    spends = _spends(session, [row for row in rows if row.id in made])
    return [
        _figures(
            row,
            by_rank[row.id],
            asked.get(row.id, 0),
            versions.get(made.get(row.id, "")),
            evaluations.get(made.get(row.id, "")),
            spends.get((row.run_id, row.round_index)) if row.id in made else None,
        )
        for row in rows
    ]


def _is_committed(row: RoundRow) -> bool:
    return row.state is RoundState.COMMITTED


def _by_id(session: Session, table: Any, ids: Sequence[str]) -> dict[str, Any]:
    return {row.id: row for row in session.scalars(select(table).where(table.id.in_(ids)))}


def _spends(session: Session, rows: Sequence[RoundRow]) -> dict[tuple[str, int], PrivacySpendRow]:
    of = (
        PrivacySpendRow.run_id.in_({row.run_id for row in rows}),
        PrivacySpendRow.round_index.in_({row.round_index for row in rows}),
    )
    return {(own.run_id, own.round_index): own for own in session.scalars(select(PrivacySpendRow).where(*of))}


def _figures(
    row: RoundRow,
    sums: Sequence[Any],
    asked: int,
    version: AdapterVersionRow | None,
    evaluation: EvaluationRow | None,
    spent: PrivacySpendRow | None,
) -> RoundFigures:
    reports = sum(own.reports for own in sums)
    means = {name: sum(getattr(own, name) or 0 for own in sums) / reports for name in _MEANS if reports}
    held_out = None if evaluation is None else evaluation.figures
    return RoundFigures(
        round_index=row.round_index,
        attempt=row.attempt,
        state=row.state,
        reason=row.reason,
        version=None if version is None else version.id,
        started_at=row.started_at,
        ended_at=row.ended_at,
        asked=asked,
        accepted=sum(own.updates for own in sums),
        ranks=tuple(RankShare(rank=own.rank or 0, updates=own.updates) for own in sums),
        downloaded_bytes=sum(int(own.downloaded_bytes or 0) for own in sums),
        uploaded_bytes=sum(int(own.update_bytes or 0) for own in sums),
        training_seconds=means.get("training_seconds"),
        first_loss=means.get("first_loss"),
        last_loss=means.get("last_loss"),
        evaluation_loss=None if held_out is None else held_out.loss,
        evaluation_accuracy=None if held_out is None else held_out.accuracy,
        privacy=None if spent is None else PrivacySpent(epsilon=spent.epsilon, delta=spent.delta),
        figures={} if version is None else version.figures or {},
    )
