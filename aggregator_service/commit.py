"""The end of a round: its updates become the next adapter version, in one transaction."""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.adapters import add_version
from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import unstacked
from aggregator_service.aggregation.tree import aggregate
from aggregator_service.bundles import read_spec
from aggregator_service.rounds import GOAL_MET, abort_live, end, go_on, in_round, leave_out, retry
from aggregator_service.service import Service, reading_own
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RankLimitRow, RoundRow, RunRow
from hetlora.errors import HetloraError
from hetlora.messages.common import ObjectRef
from hetlora.states import AssignmentState, RoundState
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes

log = logging.getLogger(__name__)


def commit_round(service: Service, round_id: str) -> None:
    """Aggregate a round and commit it; a crash at any instant leaves the round to be aggregated again.

    The adapter's object is on disk before the transaction, which moves round, run, weights, remembered ranks
    and adapter version together. An update that cannot be read back is left out (`rounds.leave_out`); updates
    that cannot be aggregated end this attempt at the round; any other fault is raised and leaves the round as
    it is.
    """
    with service.database.read() as session:
        run = session.get_one(RunRow, session.get_one(RoundRow, round_id).run_id)
        version = session.get_one(AdapterVersionRow, session.get_one(RoundRow, round_id).base_version)
        refs = [_ref(assignment) for assignment in _accepted(session, round_id)]
    reader = UpdateReader(read_spec(service, run.bundle))
    folder = service.updates(round_id)

    unreadable: list[str] = []

    def load(ref: UpdateRef) -> Update:
        try:
            return Update(reader.read(folder.read(ref.sha256)), ref.example_count)
        except HetloraError:
            unreadable.append(ref.sha256)
            raise

    with reading_own("a global adapter"):
        before = adapter_from_bytes(service.objects.read(version.sha256), reader.spec)
    rule = open_rule(run.settings.rule, first_state(run.settings.rule, before), sum(ref.rank for ref in refs))
    try:
        result = aggregate(rule, refs, load)
    except HetloraError as error:
        log.exception("round=%s aggregation=failed", round_id)
        if unreadable:
            _leave_out(service, round_id, unreadable)
        else:
            _give_up(service, round_id, str(error))
    else:
        adapter = service.objects.put(adapter_to_bytes(unstacked(result.state.adapter)))
        _commit(service, round_id, adapter, result.weights)


def _commit(service: Service, round_id: str, adapter: ObjectRef, weights: dict[UpdateRef, float]) -> None:
    now = service.clock()
    with service.database.write() as session:
        row = session.get_one(RoundRow, round_id)
        if row.state is not RoundState.AGGREGATING:
            return  # the run was stopped meanwhile
        run = session.get_one(RunRow, row.run_id)
        accepted = _accepted(session, round_id)
        for assignment in accepted:
            assignment.aggregation_weight = weights[_ref(assignment)]
            _remember_rank(session, run, assignment)
        abort_live(session, row, GOAL_MET, now)
        add_version(session, run, adapter, round_index=row.round_index, update_count=len(accepted), now=now)
        end(session, row, RoundState.COMMITTED, f"{len(accepted)} updates", now)
        go_on(session, run, row, now)
    log.info("run=%s round_index=%d committed updates=%d", run.id, row.round_index, len(accepted))


def _ref(assignment: AssignmentRow) -> UpdateRef:
    """What of an update counts: equal updates give equal bits, whoever sent them and when."""
    assert assignment.report is not None
    return UpdateRef(
        str(assignment.update_sha256),
        assignment.report.example_count,
        str(assignment.adapter_sha256),
        assignment.updated_rank or 0,
    )


def _accepted(session: Session, round_id: str) -> list[AssignmentRow]:
    query = select(AssignmentRow).where(*in_round(round_id, {AssignmentState.ACCEPTED}))
    return list(session.scalars(query))


def _remember_rank(session: Session, run: RunRow, assignment: AssignmentRow) -> None:
    """A device that pruned itself is offered no more than it kept (HetLoRA, rank self-pruning)."""
    assert assignment.rank is not None
    assert assignment.updated_rank is not None
    if assignment.updated_rank < assignment.rank:
        session.merge(
            RankLimitRow(run_id=run.id, device_id=assignment.device_id, max_rank=assignment.updated_rank)
        )


def _leave_out(service: Service, round_id: str, update_ids: list[str]) -> None:
    with service.database.write() as session:
        row = session.get_one(RoundRow, round_id)
        if row.state is RoundState.AGGREGATING:
            accepted = _accepted(session, round_id)
            unreadable = [assignment for assignment in accepted if assignment.update_sha256 in update_ids]
            leave_out(session, row, unreadable, service.clock())
    service.wake.set()  # to aggregate what is left


def _give_up(service: Service, round_id: str, reason: str) -> None:
    with service.database.write() as session:
        row = session.get_one(RoundRow, round_id)
        if row.state is RoundState.AGGREGATING:
            retry(session, session.get_one(RunRow, row.run_id), row, reason, service.clock())
