"""What every rule hands out, at every rank that a device may take."""

from __future__ import annotations

import numpy as np
from cases import CASES
from cohorts import RANK, SPEC, cohort, effective, initial, merged, trained
from every_rule import every_rule, opened, state_of

from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import unstacked


def handouts(name: str) -> list[tuple[int, Handout]]:
    """What a settled state and a new run's first one give each rank that may be taken."""
    result = []
    for state in (state_of(name), first_state(CASES[name].rule, initial())):
        rule = open_rule(CASES[name].rule, state)
        ranks = range(rule.smallest_rank, RANK + 1)
        result += [(rule.trained_rank or rank, rule.distribute(rank, 7)) for rank in ranks]
    return result


@every_rule
def test_handout_has_no_more_numbers_than_the_device_planned_for(name: str) -> None:
    for rank, handout in handouts(name):
        assert unstacked(handout.adapter).size_bytes <= 4 * rank * SPEC.parameters_per_rank
        assert set(handout.cores) == (set(SPEC.by_name) if handout.adaptation.trained == "core" else set())


@every_rule
def test_handout_is_the_same_each_time_for_one_seed(name: str) -> None:
    for (_, first), (_, second) in zip(handouts(name), handouts(name), strict=True):
        assert first.adapter.values.tobytes() == second.adapter.values.tobytes()
        assert first.adaptation == second.adaptation


@every_rule
def test_every_rank_of_a_handout_can_be_trained(name: str) -> None:
    # Gradients of lora_B A: G A^T and B^T G; of a core B^T G A^T. A rank of which both factors are zero has
    # none, and a factor that is trained alone needs the other one.
    for _, handout in handouts(name):
        sparse = handout.adaptation.upload_density < 1
        for stack, ranks in zip(handout.adapter, handout.adapter.ranks, strict=True):
            held = np.arange(stack.rank) < ranks[:, None]
            alive_A, alive_B = stack.lora_A.any(axis=2)[held], stack.lora_B.any(axis=1)[held]
            if handout.adaptation.trained == "core":
                assert (alive_A & alive_B).all()
            elif handout.adaptation.trained == "lora_B":
                assert alive_A.all()
            elif handout.adaptation.trained == "lora_A":
                assert alive_B.all()
            elif not sparse:  # what FLASC leaves out is trained as soon as one entry of its rank is there
                assert (alive_A | alive_B).all()


@every_rule
def test_run_that_begins_with_nothing_learns_from_its_first_round(name: str) -> None:
    rule = open_rule(CASES[name].rule, first_state(CASES[name].rule, initial()))
    updates = cohort(rule, [RANK] * 3, 5)
    state = merged(rule, updates).state
    if CASES[name].rule.name == "fedsa":  # what is learned of lora_B stays on devices
        assert any(
            (stack.lora_A != old.lora_A).any()
            for stack, old in zip(state.adapter, rule.state.adapter, strict=True)
        )
    else:
        assert all(np.abs(matrix).max() > 0 for matrix in effective(state).values())


@every_rule
def test_updates_of_every_rank_are_merged(name: str) -> None:
    rule = opened(name)
    ranks = range(rule.smallest_rank, RANK + 1)
    updates = [trained(rule.distribute(rank, rank), rank) for rank in ranks]
    state = merged(rule, updates).state
    assert np.isfinite(state.adapter.values).all()
    assert state.round_index == state_of(name).round_index + 1
