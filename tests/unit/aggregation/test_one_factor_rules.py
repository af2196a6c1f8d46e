"""FFA-LoRA, RoLoRA, FedSA-LoRA and DEeR against their formulas, dense and in float64."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import (
    RANK,
    SPEC,
    assert_same,
    cohort,
    effective,
    initial,
    mean,
    merged,
    products,
    seeds,
    trained,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import RankOutOfRange
from hetlora.messages.rules import AnyRule, DeerRule, FedSaRule, FfaRule, RoLoraRule

RULES: dict[str, AnyRule] = {
    "ffa": FfaRule(),
    "rolora": RoLoraRule(),
    "fedsa": FedSaRule(),
    "deer": DeerRule(),
}
unequal = pytest.mark.parametrize("rule", [RULES[name] for name in ("ffa", "rolora", "fedsa")])
few = settings(max_examples=20)


def after_rounds(rule: AnyRule, count: int, seed: int = 3) -> GlobalState:
    """The state after some rounds of two devices at the run's rank."""
    state = first_state(rule, initial())
    for number in range(count):
        opened = open_rule(rule, state)
        state = merged(opened, cohort(opened, [RANK, RANK], seed + 10 * number)).state
    return state


def over_owners(before: Adapter, updates: list[Update], factor: str) -> dict[str, np.ndarray]:
    """Each rank of one factor as the mean over those who hold it, ranks along the first axis."""
    result = {}
    for name, own in before.factors.items():
        rows = np.array(turned(own, factor), dtype=float)
        for rank in range(RANK):
            owners = [update for update in updates if update.adapter.rank > rank]
            weights = [update.example_count for update in owners]
            held = [turned(unstacked(update.adapter).factors[name], factor)[rank] for update in owners]
            if owners:
                rows[rank] = np.average(np.array(held, dtype=float), axis=0, weights=weights)
        result[name] = rows
    return result


def turned(factors: LoraFactors, factor: str) -> np.ndarray:
    return factors.lora_A if factor == "lora_A" else factors.lora_B.T


def assert_formula(state: GlobalState, before: GlobalState, updates: list[Update], factor: str) -> None:
    other = "lora_B" if factor == "lora_A" else "lora_A"
    old, new = unstacked(before.adapter), unstacked(state.adapter)
    expected = over_owners(old, updates, factor)
    for name, own in new.factors.items():
        np.testing.assert_array_equal(getattr(own, other), getattr(old.factors[name], other))
        np.testing.assert_allclose(turned(own, factor), expected[name], atol=1e-6)


@unequal
@few
@given(
    ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=8),
    seed=seeds,
    rounds=st.integers(0, 3),
)
def test_factor_of_the_round_is_averaged_over_owners_and_the_other_one_stays(
    rule: AnyRule, ranks: list[int], seed: int, rounds: int
) -> None:
    before = after_rounds(rule, rounds)
    factor = {"ffa": "lora_B", "fedsa": "lora_A"}.get(rule.name, ("lora_B", "lora_A")[rounds % 2])
    opened = open_rule(rule, before)
    updates = cohort(opened, ranks, seed)
    assert_formula(merged(opened, updates).state, before, updates, factor)


@pytest.mark.parametrize("rule", [RULES[name] for name in ("ffa", "rolora", "deer")])
@few
@given(count=st.integers(1, 6), seed=seeds, rounds=st.integers(0, 3))
def test_mean_of_products_is_exact_at_equal_ranks(rule: AnyRule, count: int, seed: int, rounds: int) -> None:
    opened = open_rule(rule, after_rounds(rule, rounds))
    updates = cohort(opened, [RANK] * count, seed)
    whole = mean([products(update.adapter) for update in updates], [u.example_count for u in updates])
    assert_same(effective(merged(opened, updates).state), whole)


@pytest.mark.parametrize("rule", [RoLoraRule(), DeerRule()])
def test_turns_begin_with_the_factor_that_is_zero(rule: AnyRule) -> None:
    # lora_B is zero then: trained alone, lora_A would have no gradient.
    moves = [
        open_rule(rule, after_rounds(rule, rounds)).distribute(RANK).adaptation.trained for rounds in range(4)
    ]
    assert moves == ["lora_B", "lora_A", "lora_B", "lora_A"]


def test_frozen_factor_of_ffa_is_the_initial_one_for_good() -> None:
    start = initial()
    for name, own in unstacked(after_rounds(FfaRule(), 4).adapter).factors.items():
        np.testing.assert_array_equal(own.lora_A, start.factors[name].lora_A)


def test_private_factor_of_fedsa_stays_on_devices() -> None:
    state = after_rounds(FedSaRule(), 3)
    assert open_rule(FedSaRule(), state).distribute(2).adaptation.private_lora_B
    for stack in state.adapter:
        assert not stack.lora_B.any()


@pytest.mark.parametrize("rank", range(1, RANK))
def test_deer_refuses_another_rank_than_the_runs(rank: int) -> None:
    state = after_rounds(DeerRule(), 1)
    rule = open_rule(DeerRule(), state)
    assert rule.smallest_rank == RANK
    with pytest.raises(RankOutOfRange, match=f"got {rank}; expected {RANK}"):
        rule.distribute(rank)
    narrow = trained(open_rule(RoLoraRule(), state).distribute(rank), 1)
    with pytest.raises(RankOutOfRange, match=f"got {rank}; expected {RANK}"):
        merged(rule, [trained(rule.distribute(RANK), 1), narrow])


def test_deer_refuses_modules_of_unequal_ranks() -> None:
    rule = open_rule(DeerRule(), after_rounds(DeerRule(), 1))
    update = trained(rule.distribute(RANK), 1)
    factors = dict(unstacked(update.adapter).factors)
    factors["out"] = LoraFactors(factors["out"].lora_A[:2], factors["out"].lora_B[:, :2])
    with pytest.raises(RankOutOfRange, match="got 2; expected 4"):
        merged(rule, [Update(stacked(Adapter(SPEC, factors)), 1, update.received)])


def test_ffa_averages_small_numbers_over_their_owners() -> None:
    # Rank 0: (1 * 2 + 3 * 6) / 4 = 5. Rank 1, which the second device alone holds: 8. lora_A stays 1.
    spec = AdapterSpec((ModuleSpec("out", 2, 2),), scaling=1.0, max_rank=2)
    start = Adapter(spec, {"out": LoraFactors(np.ones((2, 2)), np.zeros((2, 2)))})
    first = Adapter(spec, {"out": LoraFactors(np.ones((1, 2)), np.full((2, 1), 2.0))})
    second = Adapter(spec, {"out": LoraFactors(np.ones((2, 2)), np.array([[6.0, 8.0], [6.0, 8.0]]))})
    rule = open_rule(FfaRule(), first_state(FfaRule(), start))
    result = unstacked(merged(rule, [Update(stacked(first), 1), Update(stacked(second), 3)]).state.adapter)
    np.testing.assert_array_equal(result.factors["out"].lora_B, [[5.0, 8.0], [5.0, 8.0]])
    np.testing.assert_array_equal(result.factors["out"].lora_A, np.ones((2, 2)))
