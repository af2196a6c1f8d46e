"""Server optimizers over every rule, and over the coordinates of products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES
from cohorts import RANK, SPEC, Dense, assert_same, cohort, cut, effective, initial, merged, received, settled
from every_rule import fitting, opened, state_of
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.alignment import live, turned
from aggregator_service.aggregation.optimizers import WithOptimizer, with_optimizer
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.rules.flexlora import FlexLora
from aggregator_service.aggregation.rules.product_rule import ProductPartial
from aggregator_service.aggregation.stacks import unstacked
from hetlora.adapter import Adapter, LoraFactors
from hetlora.errors import SettingsError
from hetlora.messages.rules import (
    AnyRule,
    FedLoruRule,
    FedSbRule,
    FlexLoraRule,
    ResidualExactRule,
    RoLoraRule,
    ZeroPadRule,
)
from hetlora.messages.server_optimizer import ServerAdaptive, ServerMomentum, ServerOptimizer

IDENTITY = ServerMomentum(learning_rate=1.0, momentum=0.0)
ADAM = ServerAdaptive(name="adam")
OPTIMIZERS: list[ServerOptimizer] = [
    ServerMomentum(),
    ServerAdaptive(name="adagrad"),
    ADAM,
    ServerAdaptive(name="yogi"),
]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.name)
STEPPED = [
    name
    for name, case in CASES.items()
    if not open_rule(case.rule, first_state(case.rule, initial())).always_restarts
]


def rounds(rule: AnyRule, optimizer: ServerOptimizer | None, state: GlobalState, count: int) -> GlobalState:
    """The state after some rounds of two devices at the run's rank."""
    for number in range(count):
        stepping = with_optimizer(open_rule(rule, state), optimizer)
        state = merged(stepping, cohort(stepping, [RANK, RANK], 10 * number)).state
    return state


@pytest.mark.parametrize("name", STEPPED)
def test_momentum_of_rate_one_and_no_memory_is_the_rule_itself(name: str) -> None:
    rule, plain, stepped = CASES[name].rule, state_of(name), state_of(name)
    for number in range(3):
        bare, stepping = open_rule(rule, plain), with_optimizer(open_rule(rule, stepped), IDENTITY)
        updates = cohort(bare, fitting(name, [RANK, 2, RANK, 3]), 10 * number)
        plain, stepped = merged(bare, updates).state, merged(stepping, updates).state
        assert_same(effective(stepped), effective(plain), 1e-4)
        assert stepped.round_index == plain.round_index


@pytest.mark.parametrize("name", ["zero_pad", "rbla", "ffa", "rolora", "lora_a2", "flasc", "fslora"])
def test_momentum_of_rate_one_and_no_memory_changes_no_bit_of_factors(name: str) -> None:
    rule = opened(name)
    updates = cohort(rule, [RANK, 1, 2], 3)
    left = merged(rule, updates).state.adapter
    right = merged(with_optimizer(rule, IDENTITY), updates).state.adapter
    np.testing.assert_array_equal(left.values, right.values)


@pytest.mark.parametrize("name", STEPPED)
@every_optimizer
def test_order_of_arrival_changes_no_bit(name: str, optimizer: ServerOptimizer) -> None:
    rule = with_optimizer(opened(name), optimizer)
    updates = cohort(rule, fitting(name, [1, RANK, 2, 3, RANK, 1]), 5)
    first, second = (merged(rule, some).state for some in (updates, updates[::-1]))
    assert first.adapter.values.tobytes() == second.adapter.values.tobytes()
    assert sorted(first.tensors) == sorted(second.tensors)
    for key, own in first.tensors.items():
        assert own.tobytes() == second.tensors[key].tobytes(), key


class Spun(FlexLora):
    """FlexLoRA that gives its result in coordinates of its own, others each round."""

    def finish(self, total: ProductPartial) -> GlobalState:
        state = super().finish(total)
        rng = np.random.default_rng(self.state.round_index)
        adapter = state.adapter.with_values(state.adapter.values.copy())
        for stack in adapter:
            turn = np.linalg.qr(rng.standard_normal((len(stack.lora_A), RANK, RANK)))[0]
            stack.lora_A[:] = turn.swapaxes(1, 2) @ stack.lora_A
            stack.lora_B[:] = stack.lora_B @ turn
        return replace(state, adapter=adapter)


@every_optimizer
def test_coordinates_of_a_products_factors_are_of_no_account(optimizer: ServerOptimizer) -> None:
    left = right = settled(FlexLoraRule())
    for number in range(4):
        plain, spun = (
            WithOptimizer(kind(FlexLoraRule(), state), optimizer)
            for kind, state in ((FlexLora, left), (Spun, right))
        )
        updates = cohort(plain, [RANK, 2, RANK], 10 * number)
        left, right = merged(plain, updates).state, merged(spun, updates).state
        assert_same(effective(right), effective(left), 1e-3)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_turned_factors_come_back_to_what_they_were(seed: int) -> None:
    factors = live(state_of("flexlora").adapter, RANK)
    rng, spun = np.random.default_rng(seed), factors.with_values(factors.values.copy())
    for stack in spun:
        turn = np.linalg.qr(rng.standard_normal((len(stack.lora_A), RANK, RANK)))[0]
        stack.lora_A[:] = turn.swapaxes(1, 2) @ stack.lora_A
        stack.lora_B[:] = stack.lora_B @ turn
    np.testing.assert_allclose(turned(spun, factors).values, factors.values, atol=1e-9)


def is_balanced(state: GlobalState) -> bool:
    return all(
        np.allclose(own.lora_B.T @ own.lora_B, own.lora_A @ own.lora_A.T, atol=1e-4)
        for own in unstacked(state.adapter).factors.values()
    )


@pytest.mark.parametrize("rule", [FlexLoraRule(), ResidualExactRule(state_rank=RANK)])
@every_optimizer
def test_prefix_of_a_stepped_product_is_its_best_approximation(
    rule: AnyRule, optimizer: ServerOptimizer
) -> None:
    state = rounds(rule, optimizer, settled(rule), 3)
    stepping = with_optimizer(open_rule(rule, state), optimizer)
    assert is_balanced(state)
    for rank in range(1, RANK + 1):
        assert_same(received(stepping.distribute(rank)), cut(effective(state), rank), 1e-4)


@every_optimizer
@pytest.mark.parametrize("rule", [FlexLoraRule(), ResidualExactRule()])
def test_run_that_begins_with_nothing_learns_through_an_optimizer(
    rule: AnyRule, optimizer: ServerOptimizer
) -> None:
    start = Adapter(
        SPEC,
        {
            module.name: LoraFactors(
                np.ones((RANK, module.in_features)), np.zeros((module.out_features, RANK))
            )
            for module in SPEC.modules
        },
    )
    state = rounds(rule, optimizer, first_state(rule, start), 2)
    assert all(np.abs(matrix).max() > 0 for matrix in effective(state).values())


@every_optimizer
def test_factor_that_nobody_trained_stays_and_its_moments_with_it(optimizer: ServerOptimizer) -> None:
    before = rounds(RoLoraRule(), optimizer, settled(RoLoraRule()), 2)
    after = rounds(RoLoraRule(), optimizer, before, 1)
    assert before.round_index % 2 == 1
    for old, new in zip(before.adapter, after.adapter, strict=True):
        np.testing.assert_array_equal(old.lora_B, new.lora_B)
        assert (old.lora_A != new.lora_A).any()
    for key, own in before.tensors.items():
        assert (own.tobytes() == after.tensors[key].tobytes()) == ("lora_B" in key), key


def test_optimizer_of_fed_sb_moves_cores() -> None:
    before = settled(FedSbRule())
    rule = with_optimizer(open_rule(FedSbRule(), before), ADAM)
    updates = cohort(rule, [RANK, 2, RANK], 4)
    mean = merged(open_rule(FedSbRule(), before), updates).state
    after = merged(rule, updates).state
    for index, stack in enumerate(after.adapter):
        old, target, new = (state.tensors[f"core.{index}"].astype(float) for state in (before, mean, after))
        change = target - old
        expected = old + 0.01 * 0.1 * change / (np.sqrt(0.99e-6 + 0.01 * change**2) + 1e-3)
        np.testing.assert_allclose(new, expected, atol=1e-6)
        np.testing.assert_allclose(stack.lora_B, after.tensors[f"fixed_B.{index}"] @ new, atol=1e-5)


def test_fold_takes_the_mean_and_forgets_the_moments() -> None:
    rule = FedLoruRule(every_rounds=2)
    first = rounds(rule, ServerMomentum(), settled(FedLoruRule(every_rounds=100)), 1)
    assert first.round_index == 4  # a fold: nothing is remembered
    assert not first.tensors
    second = rounds(rule, ServerMomentum(), first, 1)
    assert second.tensors
    stepping, bare = with_optimizer(open_rule(rule, second), ServerMomentum()), open_rule(rule, second)
    updates = cohort(bare, [RANK, 2], 3)
    left, right = merged(stepping, updates).state, merged(bare, updates).state
    assert_same(effective(left), effective(right))
    assert not left.tensors


def test_rule_that_begins_anew_every_round_takes_no_optimizer() -> None:
    rule = FedLoruRule(every_rounds=1)
    with pytest.raises(SettingsError, match="got fedloru"):
        with_optimizer(open_rule(rule, settled(rule)), ADAM)


@pytest.mark.parametrize("name", STEPPED)
def test_optimizer_hands_out_what_the_rule_does(name: str) -> None:
    rule = opened(name)
    stepped = with_optimizer(rule, ADAM)
    assert (stepped.smallest_rank, stepped.trained_rank) == (rule.smallest_rank, rule.trained_rank)
    left, right = stepped.distribute(RANK, 3), rule.distribute(RANK, 3)
    assert left.adaptation == right.adaptation
    np.testing.assert_array_equal(left.adapter.values, right.adapter.values)


def test_rule_without_an_optimizer_is_the_rule() -> None:
    rule = open_rule(ZeroPadRule(), state_of("zero_pad"))
    assert with_optimizer(rule, None) is rule


def test_steps_of_many_rounds_keep_the_direction_of_steady_change() -> None:
    # Devices that would move to a fixed product at once: momentum 0.5 at rate 0.5 closes in on it.
    rule, goal = FlexLoraRule(), state_of("flexlora")
    target: Dense = {name: 2 * matrix for name, matrix in effective(goal).items()}
    sent = goal.adapter.with_values(goal.adapter.values * np.float32(2**0.5))
    state = goal
    for _ in range(60):
        stepping = with_optimizer(open_rule(rule, state), ServerMomentum(learning_rate=0.5, momentum=0.5))
        state = merged(stepping, [Update(sent, 1, stepping.distribute(RANK).received)]).state
    assert_same(effective(state), target, 1e-4)
