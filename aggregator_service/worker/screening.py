"""Screens on a round's updates, before they are aggregated: those that do not pass go into quarantine.

What is judged is the whole cohort, those that were taken out of it before among them: so the same updates are
judged the same once more, after a kill or when the round has collected anew, and limits do not close in on
the rest with each that goes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.aggregation.screens import Candidate, Finding, LossName, screened
from aggregator_service.rounds.closing import take_out
from aggregator_service.screens.quarantine import hold, keep_apart
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run_of_round
from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow
from aggregator_service.worker.accepted import accepted_of, are_same, ref_of
from aggregator_service.worker.stored_updates import StoredUpdates, UnreadableUpdate
from hetlora.errors import ServiceFailed
from hetlora.messages.device import Report
from hetlora.messages.management import RunSettings
from hetlora.states import RoundState

log = logging.getLogger(__name__)


def taken_out_of(session: Session, round_id: str) -> list[AssignmentRow]:
    """The assignments of a round whose updates are in quarantine."""
    of_round = AssignmentRow.round_id == round_id
    query = select(AssignmentRow).join(QuarantineRow, QuarantineRow.id == AssignmentRow.id).where(of_round)
    return list(session.scalars(query))


def find(
    settings: RunSettings,
    accepted: Sequence[AssignmentRow],
    taken_out: Sequence[AssignmentRow],
    source: StoredUpdates,
) -> dict[str, Finding]:
    """Which accepted updates do not pass the run's screens, by assignment, and why.

    The update of the device that the defence trusts is never one of them: its operator vouches for it.

    Raises:
        UnreadableUpdate: an accepted update is lost or rotten.
    """
    if settings.screens is None:
        return {}
    cohort = [*accepted, *_readable(taken_out, source)]
    candidates = [Candidate(ref_of(own), _losses(own.report)) for own in cohort]
    found = screened(settings.screens, candidates, source.load)
    judged = {own.id for own in accepted if own.device_id != settings.defence.trusted_device}
    return {
        own.id: finding
        for own, finding in zip(cohort, found, strict=True)
        if finding is not None and own.id in judged
    }


def quarantine(
    service: Service, round_id: str, judged: Sequence[AssignmentRow], findings: Mapping[str, Finding]
) -> bool:
    """Take updates out of their round, unless another process was at it meanwhile.

    Their bytes are kept apart first: a row in quarantine has them, whenever the process dies.

    Raises:
        UnreadableUpdate: the bytes of one are lost or rotten by now.
    """
    for assignment in judged:
        if assignment.id in findings and not keep_apart(service, assignment):
            raise UnreadableUpdate(str(assignment.update_sha256))
    now = service.clock()
    with service.database.write() as session:
        run = lock_run_of_round(session, round_id)
        row = session.get_one(RoundRow, round_id)
        accepted = accepted_of(session, round_id)
        if row.state is not RoundState.AGGREGATING or not are_same(accepted, judged):
            return False
        odd = [(own, findings[own.id]) for own in accepted if own.id in findings]
        take_out(session, run, row, [(own, finding.in_words()) for own, finding in odd], now)
        for assignment, finding in odd:
            hold(session, assignment, finding, now)
    log.info("run=%s round=%s quarantined=%d", run.id, round_id, len(findings))
    service.wake.set()  # to aggregate what is left
    return True


def _readable(taken_out: Sequence[AssignmentRow], source: StoredUpdates) -> Iterator[AssignmentRow]:
    """Those that can still be compared with; a round does not wait for one that is none of it any more."""
    for assignment in taken_out:
        try:
            source.load(ref_of(assignment))
        except (UnreadableUpdate, ServiceFailed):
            log.warning("assignment=%s quarantined_update=unreadable", assignment.id)
        else:
            yield assignment


def _losses(report: Report | None) -> dict[LossName, float]:
    assert report is not None, "an update came with a report"
    told: dict[LossName, float | None] = {
        "first_loss": report.first_loss,
        "last_loss": report.last_loss,
        "held_out_loss_before": report.held_out_loss_before,
        "held_out_loss_after": report.held_out_loss_after,
    }
    return {name: loss for name, loss in told.items() if loss is not None}
