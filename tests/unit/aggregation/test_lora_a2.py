"""LoRA-A2 against its formula, dense and in float64; what devices send goes through the wire."""

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
    settled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import GlobalState, Handout, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, LoraFactors
from hetlora.messages.rules import LoraA2Rule
from hetlora.partial import contract, expand

RULE = LoraA2Rule()
A_ROUND = settled(RULE)  # after three rounds, so that lora_A is trained in this one
B_ROUND = GlobalState(A_ROUND.adapter, A_ROUND.rank, round_index=4)
MODULES = len(SPEC.modules)


def drifted(handout: Handout, seed: int) -> Adapter:
    """A device's own adapter after training, before anything is selected."""
    rng = np.random.default_rng(seed)
    moved = handout.adaptation.trained
    factors = {}
    for module, own in unstacked(handout.adapter):
        tensors = {"lora_A": own.lora_A, "lora_B": own.lora_B}
        tensors[moved] = tensors[moved] + 0.3 * rng.standard_normal(tensors[moved].shape).astype(np.float32)
        factors[module.name] = LoraFactors(**tensors)
    return Adapter(SPEC, factors)


def masks(before: Adapter, after: Adapter, moved: str, count: int) -> dict[str, np.ndarray]:
    """The `count` ranks of the model with the largest ||dB[:, i] A[i, :]||_F, or ||B[:, i] dA[i, :]||_F."""
    scores = {}
    for name, own in before.factors.items():
        new = after.factors[name]
        for rank in range(RANK):
            if moved == "lora_B":
                part = np.outer(new.lora_B[:, rank] - own.lora_B[:, rank], own.lora_A[rank])
            else:
                part = np.outer(own.lora_B[:, rank], new.lora_A[rank] - own.lora_A[rank])
            scores[name, rank] = np.linalg.norm(part.astype(float))
    chosen = sorted(scores, key=lambda key: -scores[key])[:count]
    return {
        name: np.array([(name, rank) in chosen for rank in range(RANK)], dtype=float)
        for name in before.factors
    }


@pytest.mark.parametrize(("state", "moved"), [(B_ROUND, "lora_B"), (A_ROUND, "lora_A")])
@settings(max_examples=20)
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=6), seed=seeds)
def test_result_is_the_mean_of_masked_changes(
    state: GlobalState, moved: str, ranks: list[int], seed: int
) -> None:
    rule, before = open_rule(RULE, state), unstacked(state.adapter)
    updates, changes, counts = [], [], []
    for number, rank in enumerate(ranks):
        handout = rule.distribute(rank)
        assert handout.adaptation.trained == moved
        after = drifted(handout, seed + number)
        data = contract(after, handout.adaptation, before)
        arrived = stacked(expand(data, SPEC, handout.adaptation, before))
        counts.append(1 + number % 3)
        updates.append(Update(arrived, counts[-1], handout.received))
        mask = masks(before, after, moved, rank * MODULES)
        changes.append(
            {
                name: (getattr(after.factors[name], moved).astype(float) - getattr(own, moved))
                * (own_mask if moved == "lora_B" else own_mask[:, None])
                for (name, own), own_mask in zip(before.factors.items(), mask.values(), strict=True)
            }
        )
    result = unstacked(merged(rule, updates).state.adapter)
    other = "lora_A" if moved == "lora_B" else "lora_B"
    for name, own in before.factors.items():
        expected = getattr(own, moved) + np.average([one[name] for one in changes], axis=0, weights=counts)
        np.testing.assert_allclose(getattr(result.factors[name], moved), expected, atol=1e-6)
        np.testing.assert_array_equal(getattr(result.factors[name], other), getattr(own, other))


@pytest.mark.parametrize("state", [B_ROUND, A_ROUND])
@settings(max_examples=20)
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=6), seed=seeds)
def test_mean_of_products_is_exact_at_any_ranks(state: GlobalState, ranks: list[int], seed: int) -> None:
    rule = open_rule(RULE, state)
    updates = cohort(rule, ranks, seed)
    whole = mean([products(update.adapter) for update in updates], [u.example_count for u in updates])
    assert_same(effective(merged(rule, updates).state), whole)


def test_device_at_any_rank_gets_the_whole_adapter_and_sends_its_share_of_ranks() -> None:
    rule = open_rule(RULE, B_ROUND)
    assert rule.trained_rank == RANK
    for rank in range(1, RANK + 1):
        handout = rule.distribute(rank)
        np.testing.assert_array_equal(handout.adapter.values, stacked(unstacked(A_ROUND.adapter)).values)
        assert handout.adaptation.selected_ranks == rank * MODULES
        assert handout.adaptation.lora_B_rate == 5.0


def test_first_round_trains_the_factor_that_begins_at_zero() -> None:
    state = first_state(RULE, initial())
    assert open_rule(RULE, state).distribute(1).adaptation.trained == "lora_B"
