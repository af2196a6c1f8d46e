"""Fed-SB against its formula over the cores, dense and in float64; cores go through the wire."""

from __future__ import annotations

import numpy as np
from cohorts import (
    RANK,
    SPEC,
    arrived,
    assert_same,
    effective,
    initial,
    mean,
    merged,
    products,
    random_adapter,
    received,
    seeds,
    settled,
    trained,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import GlobalState, Handout, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import groups_of, stacked, unstacked
from hetlora.messages.rules import FedSbRule
from hetlora.partial_tensors import cores_to_bytes

RULE = FedSbRule()
STATE = settled(RULE)
Cores = dict[str, np.ndarray]


def cores_of(state: GlobalState) -> Cores:
    return {
        name: state.tensors[f"core.{index}"][number].astype(float)
        for index, group in enumerate(groups_of(SPEC))
        for number, name in enumerate(group.names)
    }


def moved(handout: Handout, seed: int, count: int = 1) -> tuple[Update, Cores]:
    """An update, as it comes from its bytes, and the cores that were sent."""
    rng = np.random.default_rng(seed)
    cores = {
        name: (core + rng.standard_normal(core.shape)).astype(np.float32)
        for name, core in handout.cores.items()
    }
    return arrived(handout, cores_to_bytes(cores), count), cores


@settings(max_examples=40)
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=8), seed=seeds)
def test_each_entry_of_a_core_is_averaged_over_those_who_hold_it(ranks: list[int], seed: int) -> None:
    rule, expected = open_rule(RULE, STATE), cores_of(STATE)
    sent = [moved(rule.distribute(rank), seed + number, 1 + number % 3) for number, rank in enumerate(ranks)]
    for name in expected:
        for row in range(RANK):
            for column in range(RANK):
                owners = [
                    (update, cores[name]) for update, cores in sent if len(cores[name]) > max(row, column)
                ]
                if owners:
                    expected[name][row, column] = np.average(
                        [core[row, column] for _, core in owners],
                        weights=[update.example_count for update, _ in owners],
                    )
    result = cores_of(merged(rule, [update for update, _ in sent]).state)
    for name, core in expected.items():
        np.testing.assert_allclose(result[name], core, atol=1e-5)


@settings(max_examples=20)
@given(count=st.integers(1, 6), seed=seeds)
def test_mean_of_products_is_exact_at_equal_ranks(count: int, seed: int) -> None:
    state = first_state(RULE, initial())
    rule = open_rule(RULE, state)
    updates = [
        trained(rule.distribute(RANK), seed + number, example_count=1 + number) for number in range(count)
    ]
    whole = mean([products(update.adapter) for update in updates], [u.example_count for u in updates])
    assert_same(effective(merged(rule, updates).state), whole)


def test_frozen_factors_are_orthonormal_up_to_their_scale_and_stay() -> None:
    handouts = [open_rule(RULE, state).distribute(RANK) for state in (first_state(RULE, initial()), STATE)]
    np.testing.assert_array_equal(handouts[0].adapter.values, handouts[1].adapter.values)
    for module, own in unstacked(handouts[0].adapter):
        np.testing.assert_allclose(own.lora_B.T @ own.lora_B, np.eye(RANK), atol=1e-6)
        scale = module.out_features / (3 * RANK)
        np.testing.assert_allclose(own.lora_A @ own.lora_A.T, scale * np.eye(RANK), atol=1e-6)


def test_modules_of_a_group_have_factors_of_their_own() -> None:
    factors = unstacked(open_rule(RULE, first_state(RULE, initial())).distribute(RANK).adapter).factors
    assert np.abs(factors["layers.0.key"].lora_B - factors["layers.1.key"].lora_B).max() > 0.01


def test_run_begins_with_the_base_model_and_devices_have_gradients() -> None:
    state = first_state(RULE, initial())
    assert state.frozen is None
    assert_same(effective(state), {name: np.zeros_like(one) for name, one in effective(state).items()})
    # The gradient of C is B^T G A^T, for any gradient G of the product: nowhere zero, though C is.
    handout = open_rule(RULE, state).distribute(2)
    for module, own in unstacked(handout.adapter):
        gradient = own.lora_B.T @ np.ones((module.out_features, module.in_features)) @ own.lora_A.T
        assert np.abs(gradient).min() > 0


def test_product_that_the_run_begins_with_is_kept_frozen() -> None:
    given = random_adapter(RANK, 3)
    state = first_state(RULE, given)
    assert_same(effective(state), products(stacked(given)))
    assert_same(received(open_rule(RULE, state).distribute(1)), products(stacked(given)))


def test_handout_of_a_lower_rank_is_the_leading_part_of_each() -> None:
    rule = open_rule(RULE, STATE)
    whole = rule.distribute(RANK)
    for rank in range(1, RANK):
        handout = rule.distribute(rank)
        for name, own in unstacked(handout.adapter).factors.items():
            full = unstacked(whole.adapter).factors[name]
            np.testing.assert_array_equal(own.lora_B, full.lora_B[:, :rank])
            np.testing.assert_array_equal(own.lora_A, full.lora_A[:rank])
            np.testing.assert_array_equal(handout.cores[name], whole.cores[name][:rank, :rank])


def test_many_idle_rounds_move_no_core() -> None:
    # Factors are rounded to float32: without least squares each round would multiply a core by 1 + 1e-7.
    state = STATE
    for _ in range(200):
        rule = open_rule(RULE, state)
        handout = rule.distribute(RANK)
        state = merged(rule, [Update(handout.received, 1, handout.received)]).state
    for name, core in cores_of(state).items():
        np.testing.assert_allclose(core, cores_of(STATE)[name], atol=3e-6)
