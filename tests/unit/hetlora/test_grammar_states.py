from __future__ import annotations

from enum import StrEnum
from itertools import pairwise

import pytest

from hetlora.states import (
    LEGAL_MOVES,
    AdapterVersionState,
    AssignmentState,
    DeviceState,
    EvaluationAssignmentState,
    EvaluationState,
    QuarantineState,
    RolloutDeviceState,
    RolloutState,
    RoundState,
    RunState,
    is_final,
    is_legal,
)

MACHINES = [
    DeviceState,
    AssignmentState,
    RoundState,
    RunState,
    AdapterVersionState,
    EvaluationState,
    EvaluationAssignmentState,
    QuarantineState,
    RolloutState,
    RolloutDeviceState,
]
# The main lines of the architecture's section 7, written out by hand.
PATHS = {
    DeviceState: [
        "pending accepted suspended accepted decommissioned",
        "pending rejected",
        "preauthorized accepted",
    ],
    AssignmentState: [
        "offered downloading training uploading submitted accepted",
        "submitted discarded",
        "accepted discarded",
        *(
            f"{state} {end}"
            for state in ("offered", "downloading", "training", "uploading", "submitted")
            for end in ("failed", "expired", "aborted")
        ),
    ],
    RoundState: [
        "selecting collecting aggregating committed",
        "selecting abandoned",
        "collecting abandoned",
        "aggregating abandoned",
        "aggregating collecting aggregating",
    ],
    RunState: [
        "draft running paused running completed",
        "paused completed",
        "running failed",
        "running stopped",
    ],
    AdapterVersionState: [
        "candidate approved canary rolled_out superseded",
        "rolled_out rolled_back",
        "canary rolled_back",
        "superseded rolled_out",
    ],
    EvaluationState: ["open closed"],
    QuarantineState: ["held confirmed released", "held released"],
    EvaluationAssignmentState: [
        "offered started accepted",
        *(f"{state} {end}" for state in ("offered", "started") for end in ("failed", "expired", "aborted")),
    ],
    RolloutState: [
        "draft running paused running completed rolled_back",
        "running rolled_back",
        "paused rolled_back",
        "running stopped rolled_back",
    ],
    RolloutDeviceState: [
        "offered started adopted recalled reverted",
        "offered aborted",
        "started kept",
        "started failed",
        "started offered",
        "started recalled",
    ],
}
# A device comes by a token, or an operator knows it before.
FIRST = {DeviceState: [DeviceState.PREAUTHORIZED, DeviceState.PENDING]}
FINAL = {
    DeviceState: {"decommissioned"},
    AssignmentState: {"discarded", "failed", "expired", "aborted"},
    RoundState: {"committed", "abandoned"},
    RunState: {"completed", "failed", "stopped"},
    AdapterVersionState: {"rolled_back"},
    EvaluationState: {"closed"},
    QuarantineState: {"released"},
    EvaluationAssignmentState: {"accepted", "failed", "expired", "aborted"},
    RolloutState: {"rolled_back"},
    RolloutDeviceState: {"kept", "failed", "aborted", "reverted"},
}


def test_every_machine_has_one_table() -> None:
    assert list(LEGAL_MOVES) == MACHINES


@pytest.mark.parametrize("machine", MACHINES)
def test_table_holds_only_states_of_its_own_machine(machine: type[StrEnum]) -> None:
    # Members of two machines can be equal as strings, so their types are compared.
    moves = LEGAL_MOVES[machine]
    named = [*moves, *(new for news in moves.values() for new in news)]
    assert {type(state) for state in named} == {machine}


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_is_reached_from_a_first(machine: type[StrEnum]) -> None:
    reached, frontier = set(), list(FIRST.get(machine, [next(iter(machine))]))
    while frontier:
        state = frontier.pop()
        if state not in reached:
            reached.add(state)
            frontier.extend(new for new in machine if is_legal(state, new))
    assert reached == set(machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_can_come_to_an_end(machine: type[StrEnum]) -> None:
    ending = {state for state in machine if is_final(state)}
    while True:
        before = {state for state in machine if any(is_legal(state, end) for end in ending)}
        if before <= ending:
            break
        ending |= before
    assert ending == set(machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_final_states_are_those_of_the_architecture(machine: type[StrEnum]) -> None:
    final = {state for state in machine if is_final(state)}
    assert {state.value for state in final} == FINAL[machine]
    assert not any(is_legal(state, new) for state in final for new in machine)


@pytest.mark.parametrize(("machine", "path"), [(m, path) for m, paths in PATHS.items() for path in paths])
def test_moves_of_the_architecture_are_legal(machine: type[StrEnum], path: str) -> None:
    states = [machine(name) for name in path.split()]
    assert all(is_legal(old, new) for old, new in pairwise(states))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DeviceState.REJECTED, DeviceState.ACCEPTED),
        (DeviceState.PENDING, DeviceState.SUSPENDED),
        (AssignmentState.OFFERED, AssignmentState.SUBMITTED),
        (AssignmentState.UPLOADING, AssignmentState.ACCEPTED),
        (AssignmentState.DISCARDED, AssignmentState.ACCEPTED),
        (AssignmentState.ACCEPTED, AssignmentState.EXPIRED),
        (RoundState.COLLECTING, RoundState.COMMITTED),
        (RoundState.AGGREGATING, RoundState.SELECTING),
        (RoundState.COMMITTED, RoundState.COLLECTING),
        (RunState.DRAFT, RunState.COMPLETED),
        (RunState.COMPLETED, RunState.RUNNING),
        (AdapterVersionState.CANDIDATE, AdapterVersionState.ROLLED_OUT),
        (DeviceState.PENDING, DeviceState.PENDING),
        (DeviceState.PENDING, AssignmentState.ACCEPTED),  # equal to DeviceState.ACCEPTED as a string
    ],
)
def test_moves_outside_the_architecture_are_illegal(old: StrEnum, new: StrEnum) -> None:
    assert not is_legal(old, new)
