"""The end of a round: its updates become the next adapter version, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from aggregator_service.aggregation.private_rule import PrivateRule
from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.rule import PLAIN, GlobalState, UpdateRef
from aggregator_service.aggregation.rules import RULES
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.tree import Aggregate
from aggregator_service.artifacts.adapters import StoredState, add_version, opened, read_state, store_state
from aggregator_service.artifacts.bundles import read_spec
from aggregator_service.artifacts.handouts import handout
from aggregator_service.assignments.assignments import seed_of
from aggregator_service.privacy.ledger import forget_noise, noise_key
from aggregator_service.rounds.closing import give_up, go_on, leave_out
from aggregator_service.rounds.evaluations import open_if_due
from aggregator_service.rounds.rounds import GOAL_MET, abort_live, end
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run_of_round
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    RankLimitRow,
    RoundRow,
    RunRow,
)
from aggregator_service.worker.accepted import accepted_of, are_same, ref_of
from aggregator_service.worker.checkpoints import Checkpoints, inputs_of
from aggregator_service.worker.screening import find, quarantine, unjudged_of
from aggregator_service.worker.steps import step
from aggregator_service.worker.stored_updates import StoredUpdates, UnreadableUpdate
from aggregator_service.worker.unmasking import RoundEnded, unmasked_state
from hetlora.errors import HetloraError, UnavailableError
from hetlora.messages.defence import Defence
from hetlora.messages.management import RunSettings
from hetlora.states import RoundState

log = logging.getLogger(__name__)

# A store behind a failover, or one that is not mounted yet, may have it again: its device was told it is in.
LOOKED_FOR: Final = timedelta(minutes=1)


def commit_round(service: Service, round_id: str) -> None:
    """Aggregate a round and commit it; after a crash at any instant another process goes on with the round.

    The adapter's object is on disk before the transaction, which moves round, run, weights, remembered ranks
    and adapter version together. What devices were sent is made again where it is lost. An update that stays
    lost or rotten for `LOOKED_FOR` is left out (`closing.leave_out`), one that does not pass a screen goes
    into quarantine: the round is done again with the rest. Updates that cannot be aggregated end this attempt
    at the round; any other fault is raised and leaves the round as it is.
    """
    with service.database.read() as session:
        row = session.get_one(RoundRow, round_id)
        run = session.get_one(RunRow, row.run_id)
        version = session.get_one(AdapterVersionRow, row.base_version)
        accepted = accepted_of(session, round_id)
        key = noise_key(session, row, [*map(ref_of, accepted)])
        unjudged = unjudged_of(session, run.settings, round_id, accepted)
    with step(service, "read"):
        state = read_state(service, run, version)
    source = _source(service, run, round_id, accepted)
    pruned = _pruned(service, run, source, accepted)  # before the work: it may find something missing
    try:
        with step(service, "screen"):
            findings = find(run.settings, accepted, unjudged, source)
            if findings:
                done = quarantine(service, round_id, accepted, findings)
                service.metrics.commits.labels("quarantined" if done else "overtaken").inc()
                return
        with step(service, "aggregate"):
            if run.settings.secure_aggregation is None:
                result = _aggregated(service, run.settings, row, state, accepted, source, key)
            else:
                result = Aggregate(unmasked_state(service, run.settings, row, state, accepted), {})
        with step(service, "store"):
            stored = store_state(service, run.settings, result.state)
    except RoundEnded:
        outcome = "overtaken"
    except UnreadableUpdate as error:
        if service.clock() - _unreadable_since(service, round_id) < LOOKED_FOR:
            raise UnavailableError("a stored update cannot be read now", got=error.sha256) from error
        log.exception("round=%s update=%s unreadable", round_id, error.sha256)
        _leave_out(service, round_id, error.sha256)
        outcome = "left_out"
    except UnavailableError:  # or, of its kind, ServiceFailed: neither is a fault of the updates
        raise
    except HetloraError as error:
        log.exception("round=%s aggregation=failed", round_id)
        _give_up(service, round_id, error)
        outcome = "given_up"
    else:
        with step(service, "write"):
            committed = _commit(service, round_id, accepted, stored, result.weights, pruned)
        outcome = "committed" if committed else "overtaken"
    service.metrics.commits.labels(outcome).inc()


def _aggregated(
    service: Service,
    settings: RunSettings,
    row: RoundRow,
    state: GlobalState,
    accepted: Sequence[AssignmentRow],
    source: StoredUpdates,
    key: bytes,
) -> Aggregate:
    """The rule's result on what the defence makes of the updates; updates left out weigh nothing."""
    # Of two, which a round may have that took over what another had left (ADR 0014), always the same.
    trusted = sorted(ref_of(own) for own in accepted if own.device_id == settings.defence.trusted_device)[:1]
    defended = defend(settings.defence, [*map(ref_of, accepted)], source.load, *trusted)
    rule = opened(settings, state, sum(ref.rank for ref in defended.refs), key)
    # A defence treats an update by what all of them are.
    cohort = [] if settings.defence == Defence() else [*sorted(map(ref_of, accepted)), *trusted]
    checkpoints = Checkpoints(service, row.id, inputs_of(settings, row.base_version, cohort))
    result = service.engine.aggregate(rule, defended.refs, defended.source(source), checkpoints)
    screened = defended.figures(settings.max_rank) if settings.defence != Defence() else {}
    figures = {**result.state.figures, **screened}
    return Aggregate(replace(result.state, figures=figures), defended.weights(result.weights))


def _source(service: Service, run: RunRow, round_id: str, accepted: Sequence[AssignmentRow]) -> StoredUpdates:
    rule: type[RoundRule[Any]] = (
        RULES[type(run.settings.rule)] if run.settings.privacy is None else PrivateRule
    )
    defended = run.settings.defence != Defence()
    screened = run.settings.screens is not None
    # What a defence or a screen looks at has to be finite before the rule adds it up.
    finite = "read" if defended or screened else rule.finite
    reader = UpdateReader(read_spec(service, run.bundle), finite)
    adaptations = {
        ref.plan_key: assignment.adaptation or PLAIN
        for ref, assignment in zip(map(ref_of, accepted), accepted, strict=True)
    }
    elsewhere = {
        str(own.update_sha256): service.updates(own.offered_in)
        for own in accepted
        if own.offered_in != round_id
    }
    compared = defended or screened or rule.compares
    return StoredUpdates(service.updates(round_id), service.objects, reader, adaptations, compared, elsewhere)


def _pruned(
    service: Service, run: RunRow, source: StoredUpdates, accepted: Sequence[AssignmentRow]
) -> set[str]:
    """The assignments whose devices pruned themselves: their updates have fewer ranks than they were sent.

    That need not be the rank that they took: a rule may send fewer ranks, or some modules more.
    """
    sent = {str(own.adapter_sha256): own for own in accepted}
    ranks = {}
    for sha256, own in sent.items():
        if service.objects.size_bytes(sha256) is None:
            seed = seed_of(run, own.offered_in, own.device_id)
            handout(service, own.base_version, own.rank or 0, seed)
        ranks[sha256] = source.sent_rank(sha256)
    return {own.id for own in accepted if (own.updated_rank or 0) < ranks[str(own.adapter_sha256)]}


def _commit(
    service: Service,
    round_id: str,
    aggregated: Sequence[AssignmentRow],
    stored: StoredState,
    weights: dict[UpdateRef, float],
    pruned: set[str],
) -> bool:
    """Whether the round was committed here."""
    now = service.clock()
    with service.database.write() as session:
        run = lock_run_of_round(session, round_id)
        row = session.get_one(RoundRow, round_id)
        accepted = accepted_of(session, round_id)
        # Meanwhile the run was stopped, or another process committed the round, or left updates out of it.
        if row.state is not RoundState.AGGREGATING or not are_same(accepted, aggregated):
            return False
        for assignment in accepted:
            assignment.aggregation_weight = weights.get(ref_of(assignment))  # none is known of a masked one
            if assignment.id in pruned:
                _remember_rank(session, run, assignment)
        abort_live(session, row, GOAL_MET, now)
        add_version(session, run, stored, round_index=row.round_index, update_count=len(accepted), now=now)
        end(session, row, RoundState.COMMITTED, f"{len(accepted)} updates", now)
        forget_noise(session, run.id, row.round_index)
        go_on(session, run, row, now)
        open_if_due(session, run, now)
    log.info("run=%s round_index=%d committed updates=%d", run.id, row.round_index, len(accepted))
    return True


def _remember_rank(session: Session, run: RunRow, assignment: AssignmentRow) -> None:
    """A device that pruned itself is offered no more than it kept (HetLoRA, rank self-pruning)."""
    assert assignment.updated_rank is not None
    kept = max(run.settings.min_rank, min(assignment.updated_rank, assignment.max_rank))
    session.merge(RankLimitRow(run_id=run.id, device_id=assignment.device_id, max_rank=kept))


def _unreadable_since(service: Service, round_id: str) -> datetime:
    """When an update of the round could first not be read, which is noted."""
    with service.database.write() as session:
        lock_run_of_round(session, round_id)
        row = session.get_one(RoundRow, round_id)
        row.unreadable_since = row.unreadable_since or service.clock()
        return row.unreadable_since


def _leave_out(service: Service, round_id: str, update_id: str) -> None:
    with service.database.write() as session:
        run = lock_run_of_round(session, round_id)
        row = session.get_one(RoundRow, round_id)
        if row.state is RoundState.AGGREGATING:
            accepted = accepted_of(session, round_id)
            unreadable = [assignment for assignment in accepted if assignment.update_sha256 == update_id]
            leave_out(session, run, row, unreadable, service.clock())
    service.wake.set()  # to aggregate what is left


def _give_up(service: Service, round_id: str, error: HetloraError) -> None:
    with service.database.write() as session:
        run = lock_run_of_round(session, round_id)
        row = session.get_one(RoundRow, round_id)
        if row.state is RoundState.AGGREGATING:
            give_up(session, run, row, error, service.clock())
