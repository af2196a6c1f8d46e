"""FedLoRU: FedAvg between the folds, and a model of higher rank through them."""

from __future__ import annotations

import numpy as np
from cohorts import (
    RANK,
    SPEC,
    Dense,
    assert_same,
    cohort,
    cut,
    effective,
    initial,
    mean,
    merged,
    products,
    received,
)

from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import unstacked
from hetlora.messages.rules import FedLoruRule, ZeroPadRule

EVERY_SECOND = FedLoruRule(every_rounds=2)
ZERO: Dense = {module.name: np.zeros((module.out_features, module.in_features)) for module in SPEC.modules}


def added(*parts: Dense) -> Dense:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in ZERO}


def mean_factors(updates: list[Update]) -> Dense:
    """The product of the factors' weighted means, at equal ranks."""
    counts = [update.example_count for update in updates]
    adapters = [unstacked(update.adapter) for update in updates]
    factors = [
        {
            name: np.average([getattr(own.factors[name], factor) for own in adapters], axis=0, weights=counts)
            for name in ZERO
        }
        for factor in ("lora_B", "lora_A")
    ]
    return {name: factors[0][name] @ factors[1][name] for name in ZERO}


def rounds(rule: FedLoruRule, count: int, size: float = 0.3) -> list[tuple[GlobalState, list[Update]]]:
    """The states after each round of two devices at the run's rank, and what they were made of."""
    state, seen = first_state(rule, initial()), []
    for number in range(count):
        opened = open_rule(rule, state)
        updates = cohort(opened, [RANK, RANK], 10 * number, size)
        state = merged(opened, updates).state
        seen.append((state, updates))
    return seen


def test_between_folds_it_is_fedavg() -> None:
    rule = FedLoruRule(every_rounds=10)
    for state, updates in rounds(rule, 3):
        assert state.frozen is None
        assert_same(effective(state), mean_factors(updates))
    opened, plain = open_rule(rule, state), open_rule(ZeroPadRule(), state)
    updates = cohort(opened, [1, 2, RANK], 7)
    left, right = (merged(one, updates).state.adapter for one in (opened, plain))
    np.testing.assert_array_equal(left.values, right.values)


def test_products_of_the_rounds_before_each_fold_add_up() -> None:
    seen = rounds(EVERY_SECOND, 5)
    folded = ZERO
    for number, (state, updates) in enumerate(seen):
        if number % 2 == 0:
            assert_same(effective(state), added(folded, mean_factors(updates)))
        else:
            folded = added(folded, mean_factors(updates))
            assert_same(effective(state), folded)
            assert not any(stack.lora_B.any() for stack in state.adapter)


def test_rank_of_the_model_grows_beyond_that_of_the_adapter() -> None:
    state, _ = rounds(EVERY_SECOND, 4)[-1]
    assert {np.linalg.matrix_rank(one, tol=1e-4) for one in effective(state).values()} == {5, 6}


def test_every_restart_has_a_fresh_adapter_that_can_be_trained() -> None:
    starts = [state.adapter.values for state, _ in rounds(EVERY_SECOND, 6)[1::2]]
    assert len({values.tobytes() for values in starts}) == 3
    for state, _ in rounds(EVERY_SECOND, 6)[1::2]:
        for stack in state.adapter:
            assert (np.abs(stack.lora_A).max(axis=2) > 0).all()


def test_what_passes_the_frozen_rank_is_cut_by_its_singular_values() -> None:
    narrow = FedLoruRule(every_rounds=1, frozen_rank=2)
    (first, updates), (second, more) = rounds(narrow, 2)
    assert_same(effective(first), cut(mean_factors(updates), 2))
    assert_same(effective(second), cut(added(effective(first), mean_factors(more)), 2))


def test_devices_at_any_rank_get_what_was_folded() -> None:
    state, _ = rounds(EVERY_SECOND, 2)[-1]
    assert state.frozen is not None
    for rank in range(1, RANK + 1):
        assert_same(received(open_rule(EVERY_SECOND, state).distribute(rank)), products(state.frozen))


def test_updates_are_trained_beside_what_is_frozen() -> None:
    state, _ = rounds(EVERY_SECOND, 2)[-1]
    opened = open_rule(EVERY_SECOND, state)
    updates = cohort(opened, [RANK] * 3, 3)
    assert state.frozen is not None
    alone = mean([mean_factors(updates)], [1.0])
    assert_same(effective(merged(opened, updates).state), added(products(state.frozen), alone))
