"""The largest updates that the service lets in: at them every rule still has a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES
from cohorts import RANK, random_adapter, trained
from every_rule import assert_sound, every_rule, opened, state_of

from aggregator_service.aggregation.rule import PLAIN, UpdateRef
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, unstacked
from aggregator_service.aggregation.tree import aggregate
from aggregator_service.assignments.validation import LARGEST_NORM, validate_update
from hetlora.adapter import Adapter
from hetlora.errors import NonFiniteValues
from hetlora.lazy_adapter import lazily
from hetlora.tensors import adapter_to_bytes

SIZES = {
    "lora_A": (LARGEST_NORM, 1.0),
    "lora_A alone": (LARGEST_NORM, 1e-30),
    "lora_B": (1.0, LARGEST_NORM),
    "lora_B alone": (1e-30, LARGEST_NORM),
    "product": (LARGEST_NORM**0.5, LARGEST_NORM**0.5),
}
every_size = pytest.mark.parametrize("size", SIZES)


def sized(adapter: StackedAdapter, norm_A: float, norm_B: float, equal: bool = False) -> StackedAdapter:
    """With factors of these norms in every module; with equal entries if so asked, of one singular value."""
    result = adapter.with_values(adapter.values.astype(np.float64))
    for stack in result:
        for factors, norm in ((stack.lora_A, norm_A), (stack.lora_B, norm_B)):
            if equal:
                factors[:] = 1.0
            sizes = np.linalg.norm(factors, axis=(1, 2), keepdims=True)
            factors *= norm / np.where(sizes > 0, sizes, 1.0)
    return result.with_values(result.values.astype(np.float32))


def let_in(data: bytes) -> Adapter:
    sent = lazily(random_adapter(RANK, 0))
    return validate_update(data, sent, PLAIN, min_rank=1, one_rank=True).whole()


def data_of(norm_A: float, norm_B: float) -> bytes:
    return adapter_to_bytes(unstacked(sized(state_of("zero_pad").adapter, norm_A, norm_B)))


@every_size
def test_update_at_the_limit_is_let_in_and_one_beyond_it_is_not(size: str) -> None:
    norm_A, norm_B = SIZES[size]
    let_in(data_of(0.999 * norm_A, 0.999 * norm_B))
    with pytest.raises(NonFiniteValues, match=r"of layers\.0\.key.* too large.*got norms .*up to 1e\+15"):
        let_in(data_of(1.001 * norm_A, 1.001 * norm_B))


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_one_number_near_the_end_of_float32_is_refused(factor: str) -> None:
    adapter = state_of("zero_pad").adapter
    adapter = adapter.with_values(adapter.values.copy())
    getattr([*adapter][2], factor)[0, 0, 0] = 3e38
    with pytest.raises(NonFiniteValues, match=r"of out .* too large"):
        let_in(adapter_to_bytes(unstacked(adapter)))


@every_rule
@pytest.mark.parametrize(
    "sizes", [*((size,) * 3 for size in SIZES), ("lora_A alone", "lora_B alone", "product")]
)
@pytest.mark.parametrize("equal", [False, True])
def test_updates_at_the_limit_give_a_result_that_can_be_handed_out(
    name: str, sizes: tuple[str, ...], equal: bool
) -> None:
    rule, updates = opened(name), {}
    for number, size in enumerate(sizes):
        update = trained(rule.distribute(RANK, number), number)
        adapter = sized(update.adapter, *(0.999 * norm for norm in SIZES[size]), equal)
        updates[UpdateRef(str(number), 1 + number)] = replace(update, adapter=adapter)
    state = aggregate(rule, [*updates], updates.__getitem__).state
    assert_sound(state)
    sent = open_rule(CASES[name].rule, state).distribute(RANK).received
    unstacked(sent)  # raises where a number passes float32
