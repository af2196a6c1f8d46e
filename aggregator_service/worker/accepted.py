"""The accepted updates of a round: which there are, what of each counts, whether they are still the same."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.aggregation.rule import PLAIN, UpdateRef
from aggregator_service.rounds.rounds import ACCEPTED, in_round
from aggregator_service.storage.tables import AssignmentRow


def ref_of(assignment: AssignmentRow) -> UpdateRef:
    """What of an update counts: equal updates give equal bits, whoever sent them and when."""
    assert assignment.report is not None
    return UpdateRef(
        str(assignment.update_sha256),
        assignment.report.example_count,
        str(assignment.adapter_sha256),
        assignment.rank or 0,
        (assignment.adaptation or PLAIN).ranks or (),
        assignment.staleness or 0,
    )


def are_same(accepted: Sequence[AssignmentRow], others: Sequence[AssignmentRow]) -> bool:
    """Whether two looks at a round found the same updates."""
    one, another = ({(own.id, own.update_sha256) for own in found} for found in (accepted, others))
    return one == another


def accepted_of(session: Session, round_id: str) -> list[AssignmentRow]:
    """The assignments of a round whose updates are accepted."""
    query = select(AssignmentRow).where(*in_round(round_id, ACCEPTED))
    return list(session.scalars(query))
