"""Screens on a round's updates, before they are aggregated: those that do not pass go into quarantine.

An update is judged once, in the cohort that it was first to be aggregated in. Those that passed where others
did not are noted with these: they stay in the cohort that later ones are judged by, in a round that collects
anew, and limits do not close in on them with each that goes. Those that were taken out are no part of it:
hostile devices that come one after another would be its majority in the end.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.aggregation.screens import Candidate, Finding, LossName, screened
from aggregator_service.rounds.closing import take_out
from aggregator_service.rounds.rounds import ACCEPTED, in_round
from aggregator_service.screens.quarantine import hold, keep_apart
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run_of_round
from aggregator_service.storage.screen_tables import ScreenPassRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow
from aggregator_service.worker.accepted import accepted_of, are_same, ref_of
from aggregator_service.worker.stored_updates import StoredUpdates, UnreadableUpdate
from hetlora.messages.device import Report
from hetlora.messages.management import RunSettings
from hetlora.states import RoundState

log = logging.getLogger(__name__)


def unjudged_of(
    session: Session, settings: RunSettings, round_id: str, accepted: Sequence[AssignmentRow]
) -> set[str]:
    """The assignments of accepted updates that the run's screens, if it has any, have not judged yet.

    The update of the device that the defence trusts is never one of them: its operator vouches for it.
    """
    if settings.screens is None:
        return set()
    asked = {own.id for own in accepted if own.device_id != settings.defence.trusted_device}
    of_round = AssignmentRow.id == ScreenPassRow.assignment_id
    passed = select(ScreenPassRow.assignment_id).join(AssignmentRow, of_round)
    return asked - set(session.scalars(passed.where(*in_round(round_id, ACCEPTED))))


def find(
    settings: RunSettings, accepted: Sequence[AssignmentRow], unjudged: Collection[str], source: StoredUpdates
) -> dict[str, Finding]:
    """Which unjudged updates do not pass the run's screens, by assignment, and why.

    Raises:
        UnreadableUpdate: an accepted update is lost or rotten.
    """
    if settings.screens is None or not unjudged:
        return {}
    candidates = [Candidate(ref_of(own), _losses(own.report)) for own in accepted]
    found = screened(settings.screens, candidates, source.load)
    return {
        own.id: finding
        for own, finding in zip(accepted, found, strict=True)
        if finding is not None and own.id in unjudged
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
        for assignment in accepted:
            if assignment.id not in findings:
                session.merge(ScreenPassRow(assignment_id=assignment.id))
    log.info("run=%s round=%s quarantined=%d", run.id, round_id, len(findings))
    service.wake.set()  # to aggregate what is left
    return True


def _losses(report: Report | None) -> dict[LossName, float]:
    assert report is not None, "an update came with a report"
    told: dict[LossName, float | None] = {
        "first_loss": report.first_loss,
        "last_loss": report.last_loss,
        "held_out_loss_before": report.held_out_loss_before,
        "held_out_loss_after": report.held_out_loss_after,
    }
    return {name: loss for name, loss in told.items() if loss is not None}
