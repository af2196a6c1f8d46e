"""Rounds that cannot be aggregated: when a run is paused for it."""

from __future__ import annotations

import pytest
from fake_clock import FakeClock
from service_verbs import started_run

from aggregator_service.rounds.closing import give_up
from aggregator_service.rounds.rounds import open_round_of
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run
from aggregator_service.storage.tables import RunRow
from aggregator_service.storage.transitions import move
from hetlora.errors import HetloraError, NonFiniteValues, StateConflict
from hetlora.states import RoundState, RunState

FIRST, SECOND, OTHER = (
    StateConflict("nobody is trusted", got=2),
    StateConflict("no trust"),
    NonFiniteValues("no"),
)


@pytest.mark.parametrize(
    ("faults", "state"),
    [
        ((FIRST, SECOND), RunState.RUNNING),
        ((FIRST, SECOND, FIRST), RunState.PAUSED),
        ((FIRST, OTHER, SECOND), RunState.RUNNING),
        ((FIRST, OTHER, SECOND, FIRST), RunState.PAUSED),
    ],
    ids=["two", "three of one code", "two of one code, one of another", "another among three"],
)
def test_run_is_paused_by_the_third_fault_of_one_code_whatever_its_words(
    service: Service, clock: FakeClock, bundle: str, faults: tuple[HetloraError, ...], state: RunState
) -> None:
    run_id = started_run(service, bundle)
    for fault in faults:
        with service.database.write() as session:
            run, row = lock_run(session, run_id), open_round_of(session, run_id)
            assert row is not None
            move(session, row, RoundState.AGGREGATING, "test", clock.now)
            give_up(session, run, row, fault, clock.now)
    with service.database.read() as session:
        assert session.get_one(RunRow, run_id).state is state
