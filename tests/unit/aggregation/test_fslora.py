"""FSLoRA against its formula, and its unbiasedness by enumeration of every draw."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from cohorts import RANK, SPEC, assert_same, cohort, mean, merged, products, seeds, settled, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import Handout, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.rules.fslora import FsLora
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, LoraFactors
from hetlora.errors import RankOutOfRange
from hetlora.messages.rules import FsLoraRule

RULE = FsLoraRule()
STATE = settled(RULE)
every_rank = pytest.mark.parametrize("rank", range(1, RANK + 1))


def opened(rule: FsLoraRule = RULE) -> FsLora:
    return FsLora(rule, STATE)


@pytest.mark.parametrize("weights", ["uniform", "examples"])
@settings(max_examples=30)
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=8), seed=seeds)
def test_result_adds_the_mean_of_sparse_changes(weights: str, ranks: list[int], seed: int) -> None:
    rule = opened(FsLoraRule.model_validate({"weights": weights}))
    updates = cohort(rule, ranks, seed)
    counts = [update.example_count if weights == "examples" else 1 for update in updates]
    result, before = unstacked(merged(rule, updates).state.adapter), unstacked(STATE.adapter)
    for name, own in before.factors.items():
        changes_A, changes_B = [], []
        for update in updates:
            assert update.ranks is not None
            assert update.received is not None
            picked = np.eye(RANK)[list(update.ranks)]  # (r, R)
            after, sent = (unstacked(side).factors[name] for side in (update.adapter, update.received))
            changes_A.append(picked.T @ (after.lora_A.astype(float) - sent.lora_A))
            changes_B.append((after.lora_B.astype(float) - sent.lora_B) @ picked)
        expected_A = own.lora_A + np.average(changes_A, axis=0, weights=counts)
        expected_B = own.lora_B + np.average(changes_B, axis=0, weights=counts)
        np.testing.assert_allclose(result.factors[name].lora_A, expected_A, atol=1e-6)
        np.testing.assert_allclose(result.factors[name].lora_B, expected_B, atol=1e-6)


@every_rank
def test_model_that_devices_compute_with_is_the_global_one_in_the_mean(rank: int) -> None:
    draws = [opened().sketch(ranks) for ranks in combinations(range(RANK), rank)]
    seen = [
        {name: draw.adaptation.amplification * own for name, own in products(draw.adapter).items()}
        for draw in draws
    ]
    assert_same(mean(seen, [1.0] * len(seen)), products(STATE.adapter))


def stepped(handout: Handout, gradients: dict[str, np.ndarray], rate: float) -> Update:
    """One step of gradient descent on sum <G, g B A>, whose gradients are g G A^T and g B^T G."""
    scale = handout.adaptation.amplification
    factors = {
        module.name: LoraFactors(
            own.lora_A - rate * scale * own.lora_B.T @ gradients[module.name],
            own.lora_B - rate * scale * gradients[module.name] @ own.lora_A.T,
        )
        for module, own in unstacked(handout.adapter)
    }
    return Update(stacked(Adapter(SPEC, factors)), 1, handout.received, ranks=handout.adaptation.ranks)


@every_rank
def test_mean_step_over_every_draw_is_the_step_of_the_whole_adapter(rank: int) -> None:
    rng = np.random.default_rng(5)
    gradients = {m.name: rng.standard_normal((m.out_features, m.in_features)) for m in SPEC.modules}
    rule = opened()
    draws = [rule.sketch(ranks) for ranks in combinations(range(RANK), rank)]
    result = merged(rule, [stepped(draw, gradients, 0.1) for draw in draws]).state.adapter
    whole = merged(rule, [stepped(rule.distribute(RANK), gradients, 0.1)]).state.adapter
    np.testing.assert_allclose(result.values, whole.values, atol=1e-5)


def test_every_draw_is_as_likely_as_another() -> None:
    # 6 pairs of 4 ranks; of 1,200 draws each pair is to have 200, of a standard deviation of 13.
    drawn = [opened().distribute(2, seed).adaptation.ranks for seed in range(1200)]
    counts = [drawn.count(pair) for pair in combinations(range(RANK), 2)]
    assert sum(counts) == 1200
    assert min(counts) > 140
    assert max(counts) < 260


@every_rank
def test_handout_is_the_drawn_part_of_the_global_adapter(rank: int) -> None:
    handout = opened().distribute(rank, 11)
    assert handout.adaptation.ranks == opened().distribute(rank, 11).adaptation.ranks
    assert handout.adaptation.ranks is not None
    assert handout.adaptation.amplification == RANK / rank
    whole = unstacked(STATE.adapter)
    for name, own in unstacked(handout.adapter).factors.items():
        np.testing.assert_array_equal(own.lora_A, whole.factors[name].lora_A[list(handout.adaptation.ranks)])


def test_rank_that_was_pruned_has_not_changed() -> None:
    rule = opened()
    update = trained(rule.sketch([0, 2, 3]), 4)
    cut = Adapter(
        SPEC,
        {
            name: LoraFactors(own.lora_A[:2], own.lora_B[:, :2])
            for name, own in unstacked(update.adapter).factors.items()
        },
    )
    pruned = Update(stacked(cut), 1, update.received, ranks=update.ranks)
    whole, result, before = (
        unstacked(adapter)
        for adapter in (
            merged(rule, [update]).state.adapter,
            merged(rule, [pruned]).state.adapter,
            STATE.adapter,
        )
    )
    for name, own in result.factors.items():
        np.testing.assert_array_equal(own.lora_A[[0, 2]], whole.factors[name].lora_A[[0, 2]])
        np.testing.assert_array_equal(own.lora_A[[1, 3]], before.factors[name].lora_A[[1, 3]])


def test_equal_updates_of_other_ranks_each_move_their_own() -> None:
    # All ranks are ones, so that draws of one size are one and the same adapter; three of four devices drew
    # rank 1, and each adds 1 to what it was sent.
    state = first_state(
        RULE,
        Adapter(
            SPEC,
            {
                m.name: LoraFactors(np.ones((RANK, m.in_features)), np.ones((m.out_features, RANK)))
                for m in SPEC.modules
            },
        ),
    )
    rule = FsLora(RULE, state)
    handouts = [rule.sketch([rank]) for rank in (1, 1, 3, 1)]
    assert len({handout.adapter.values.tobytes() for handout in handouts}) == 1
    updates = [
        Update(
            own.adapter.with_values(own.adapter.values + np.float32(1)),
            received=own.received,
            received_sha256="ones",
            ranks=own.adaptation.ranks,
        )
        for own in handouts
    ]
    for _, factors in unstacked(merged(rule, updates).state.adapter):
        np.testing.assert_array_equal(factors.lora_A[:, 0], [1, 1.75, 1, 1.25])
        np.testing.assert_array_equal(factors.lora_B[0], [1, 1.75, 1, 1.25])


@pytest.mark.parametrize("ranks", [(0,), (0, 0), (0, RANK), (-1, 2)])
def test_selection_that_does_not_fit_is_refused(ranks: tuple[int, ...]) -> None:
    handout = opened().distribute(2)
    update = Update(handout.adapter, 1, handout.adapter, ranks=ranks)
    with pytest.raises(RankOutOfRange):
        merged(open_rule(RULE, STATE), [update])
