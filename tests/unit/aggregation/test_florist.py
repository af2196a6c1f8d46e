"""FLoRIST against its formula, dense and in float64."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import (
    RANK,
    SPEC,
    Dense,
    as_sent,
    assert_same,
    cohort,
    effective,
    initial,
    mean,
    merged,
    products,
    ranks_of_cohorts,
    seeds,
    settled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of, stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.rules import FloristRule

STATE = settled(FloristRule())


def formula(updates: list[Update], share: float) -> tuple[Dense, dict[str, int]]:
    """M cut at the smallest rank that keeps the share, or at the run's; and that rank."""
    whole = mean([products(one.adapter) for one in updates], [one.example_count for one in updates])
    result: Dense = {}
    ranks = {}
    for name, matrix in whole.items():
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        enough = [p for p in range(1, len(values)) if np.sum(values[:p] ** 2) >= share * np.sum(values**2)]
        ranks[name] = min([*enough, RANK])
        p = ranks[name]
        result[name] = (left[:, :p] * values[:p]) @ right[:p]
    return result, ranks


def ranks_of(adapter: StackedAdapter) -> dict[str, int]:
    return {
        name: int(rank)
        for group, ranks in zip(groups_of(adapter.spec), adapter.ranks, strict=True)
        for name, rank in zip(group.names, ranks, strict=True)
    }


@settings(max_examples=40)
@given(ranks=ranks_of_cohorts, seed=seeds, share=st.sampled_from([0.3, 0.6, 0.8, 0.95]))
def test_result_is_the_formula_over_the_list(ranks: list[int], seed: int, share: float) -> None:
    rule = open_rule(FloristRule(energy=share), STATE)
    updates = cohort(rule, ranks, seed)
    expected, kept = formula(updates, share)
    state = merged(rule, updates).state
    assert ranks_of(state.adapter) == kept
    assert_same(effective(state), expected, 1e-4)


def diagonal(values: list[float], size: int = 4) -> tuple[AdapterSpec, Update]:
    spec = AdapterSpec((ModuleSpec("m", size, size),), scaling=1.0, max_rank=size)
    factors = LoraFactors(np.eye(len(values), size), np.eye(size, len(values)) * np.array(values))
    return spec, Update(stacked(Adapter(spec, {"m": factors})))


@pytest.mark.parametrize(("share", "rank"), [(0.5, 1), (0.63, 1), (0.65, 2), (0.95, 2), (0.97, 3), (1.0, 3)])
def test_rank_is_the_smallest_that_keeps_the_share(share: float, rank: int) -> None:
    # Singular values 8, 5.6568 and 2: energies 64, 32 and 4 of 100.
    _, update = diagonal([8.0, 32**0.5, 2.0])
    result = merged(open_rule(FloristRule(energy=share), GlobalState(update.adapter, 4)), [update])
    assert result.state.adapter.rank == rank
    assert result.state.figures["energy_kept"] == pytest.approx([0.64, 0.96, 1.0][rank - 1])
    assert result.state.figures["modules_at_limit"] == 0


def test_limit_of_the_runs_rank_costs_energy_and_says_so() -> None:
    # Two devices of rank 1 on axes of their own, values 8 and 6: halved in the mean: energies 16 and 9. The
    # run's rank 1 keeps 16 of 25.
    spec, first = diagonal([8.0])
    second = Update(stacked(Adapter(spec, {"m": LoraFactors(np.eye(4)[1:2], 6 * np.eye(4)[:, 1:2])})))
    rule = open_rule(FloristRule(energy=0.9), GlobalState(first.adapter, 1))
    figures = merged(rule, [first, second]).state.figures
    assert figures == {"energy_kept": pytest.approx(16 / 25), "modules_at_limit": 1}


def test_module_that_learned_nothing_keeps_one_trainable_rank() -> None:
    rule = open_rule(FloristRule(), first_state(FloristRule(), initial()))
    state = merged(rule, [as_sent(rule.distribute(RANK)), as_sent(rule.distribute(2), 2)]).state
    assert set(ranks_of(state.adapter).values()) == {1}
    assert state.figures["energy_kept"] == 1
    for stack in state.adapter:
        assert not stack.lora_B.any()
        assert (np.abs(stack.lora_A).max(axis=2) > 0).all()


def test_threshold_is_taken_anew_of_what_the_round_before_left() -> None:
    # Energies 100, 5 and 4: 0.95 of 109 is 103.55, so the 4 goes; 0.95 of 105 is 99.75, so the 5 goes too.
    _, update = diagonal([10.0, 5**0.5, 2.0])
    rule = FloristRule(energy=0.95)
    state = GlobalState(update.adapter, 4)
    found = []
    for _ in range(3):
        opened = open_rule(rule, state)
        state = merged(opened, [as_sent(opened.distribute(4))]).state
        found.append(state.adapter.rank)
    assert found == [2, 1, 1]


@given(rank=st.integers(1, RANK), seed=seeds)
@settings(max_examples=20)
def test_device_gets_what_fits_of_the_one_adapter(rank: int, seed: int) -> None:
    rule = open_rule(FloristRule(energy=0.8), STATE)
    state = merged(rule, cohort(rule, [RANK, 2, 1], seed)).state
    sent = open_rule(FloristRule(energy=0.8), state).distribute(rank).adapter
    expected = {name: min(rank, own) for name, own in ranks_of(state.adapter).items()}
    assert ranks_of(sent) == expected
    whole, own = unstacked(state.adapter), unstacked(sent)
    for name in SPEC.by_name:
        np.testing.assert_array_equal(own.factors[name].lora_A, whole.factors[name].lora_A[: expected[name]])


def test_adapter_of_unequal_ranks_goes_through_the_next_round() -> None:
    low = FloristRule(energy=0.7)
    state = merged(open_rule(low, STATE), cohort(open_rule(low, STATE), [RANK, RANK, 2], 1)).state
    assert len(set(ranks_of(state.adapter).values())) > 1
    rule = open_rule(low, state)
    updates = cohort(rule, [RANK, 3, 1], 5)
    expected, kept = formula(updates, 0.7)
    after = merged(rule, updates).state
    assert ranks_of(after.adapter) == kept
    assert_same(effective(after), expected, 1e-4)
