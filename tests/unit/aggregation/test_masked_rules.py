"""A masked sum gives what the rule gives on updates that it sees, whichever devices drop out."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import RANK, SPEC, initial, merged, random_adapter

from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter
from hetlora.masking.quantising import Quantiser
from hetlora.masking.vector import joint_vector, mean_of, size_of, weight_of
from hetlora.messages.masking import Weighing
from hetlora.messages.rules import AnyRule, HetLoraRule, ZeroPadRule
from hetlora.testing.masked_cohort import MaskedCohort, unmasked

LARGEST = 2.0**20


@pytest.mark.parametrize("count", [10, 50, 100])
@pytest.mark.parametrize(
    ("rule", "weighing"),
    [
        (HetLoraRule(), "norm"),
        (ZeroPadRule(), "examples"),
        (ZeroPadRule(weights="uniform"), "uniform"),
    ],
)
def test_masked_mean_is_the_rules_own_to_a_millionth_where_a_fifth_drops_out(
    rule: AnyRule, weighing: Weighing, count: int
) -> None:
    rng = np.random.default_rng(count)
    updates = [random_adapter(1 + own % RANK, own, scale=10.0 ** rng.uniform(-3, 1)) for own in range(count)]
    examples = [int(own) for own in rng.integers(1, 5000, count)]
    # A tenth never share their secrets, and a tenth do, but then do not send their vectors.
    order = [int(own) for own in rng.permutation(count)]
    sharers, reported = sorted(order[count // 10 :]), sorted(order[count // 5 :])
    assert len(reported) == 0.8 * count

    mean = masked_mean(updates, examples, weighing, sharers, reported)

    state = merged(
        open_rule(rule, first_state(rule, initial())),
        [Update(stacked(updates[own]), examples[own]) for own in reported],
    ).state
    plain = unstacked(state.adapter)
    for module, own in mean:
        for factor in ("lora_A", "lora_B"):
            want = getattr(plain.factors[module.name], factor)
            np.testing.assert_allclose(getattr(own, factor), want, rtol=0, atol=1e-6 * np.abs(want).max())


def masked_mean(
    updates: list[Adapter], examples: list[int], weighing: Weighing, sharers: list[int], reported: list[int]
) -> Adapter:
    cohort = MaskedCohort.of(len(updates), 2 * len(updates) // 3 + 1)
    quantiser = Quantiser(LARGEST, len(updates))
    total = np.zeros(size_of(SPEC, RANK), np.uint64)
    for own in reported:
        weight = weight_of(weighing, updates[own], examples[own])
        total += cohort.masked(own, quantiser.encode(joint_vector(updates[own], RANK, weight)), sharers)
    reveals = {own: cohort.reveal(own, sharers, reported) for own in reported[: cohort.threshold]}
    mean = mean_of(quantiser.decode(unmasked(cohort, total, reveals)), SPEC, RANK)
    assert mean is not None
    return mean
