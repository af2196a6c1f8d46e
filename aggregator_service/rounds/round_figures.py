"""The figures of a round, made of its assignments each time they are asked for: nothing is kept twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator_service.privacy.ledger import spent_by
from aggregator_service.rounds.rounds import ACCEPTED, in_round
from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.identifiers import version_id_of
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow
from hetlora.messages.device import Report
from hetlora.messages.figures import RankShare, RoundFigures
from hetlora.states import RoundState


def round_figures(session: Session, row: RoundRow) -> RoundFigures:
    """What one attempt at a round came to, or has come to so far."""
    accepted = session.execute(
        select(AssignmentRow.rank, AssignmentRow.update_bytes, AssignmentRow.report).where(
            *in_round(row.id, ACCEPTED)
        )
    ).all()
    reports = [own.report for own in accepted if own.report is not None]
    ranks = Counter(own.rank or 0 for own in accepted)
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
        accepted=len(accepted),
        ranks=tuple(RankShare(rank=rank, updates=count) for rank, count in sorted(ranks.items())),
        downloaded_bytes=sum(report.downloaded_bytes for report in reports),
        uploaded_bytes=sum(own.update_bytes or 0 for own in accepted),
        training_seconds=_mean(reports, "training_seconds"),
        first_loss=_mean(reports, "first_loss"),
        last_loss=_mean(reports, "last_loss"),
        evaluation_loss=None if held_out is None else held_out.loss,
        evaluation_accuracy=None if held_out is None else held_out.accuracy,
        privacy=None if version is None else spent_by(session, row.run_id, row.round_index),
        figures={} if version is None else version.figures or {},
    )


def _mean(reports: Sequence[Report], name: str) -> float | None:
    return fmean(getattr(report, name) for report in reports) if reports else None


def _version_of(session: Session, row: RoundRow) -> AdapterVersionRow | None:
    """What a round made, if it committed."""
    if row.state is not RoundState.COMMITTED:
        return None
    return session.get(AdapterVersionRow, version_id_of(row.run_id, row.round_index))
