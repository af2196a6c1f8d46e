"""What no device of ours sends, for every rule, from bytes on: a typed error or a defined result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from cases import CASES
from cohorts import RANK, SPEC, as_sent, assert_same, effective, initial, random_adapter, trained
from every_rule import assert_sound, every_rule, fitting, opened
from safetensors.numpy import save

from aggregator_service.aggregation.optimizers import with_optimizer
from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import unstacked
from aggregator_service.aggregation.tree import Aggregate, Load, aggregate
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import (
    InputError,
    MalformedTensors,
    NonFiniteValues,
    RankOutOfRange,
    SpecMismatch,
    StateConflict,
)
from hetlora.messages.defence import Defence
from hetlora.messages.server_optimizer import ServerMomentum
from hetlora.tensors import adapter_to_bytes, to_tensors

Tensors = dict[str, np.ndarray]


def sent_back(rule: Rule, seed: int) -> tuple[Update, bytes]:
    """What a device at the run's rank sends, and its bytes at full width."""
    update = trained(rule.distribute(RANK, seed), seed)
    return update, adapter_to_bytes(unstacked(update.adapter))


def stored(rule: Rule, stored_bytes: Mapping[UpdateRef, bytes]) -> Load:
    """Reads these bytes as updates of one handout."""
    reader, handout = UpdateReader(SPEC, rule.finite), rule.distribute(RANK)

    def load(ref: UpdateRef) -> Update:
        adapter = reader.read(stored_bytes[ref])
        return Update(adapter, ref.example_count, handout.received, ranks=handout.adaptation.ranks)

    return load


def changed(change: Callable[[Tensors], object]) -> bytes:
    """A good update's tensors, changed."""
    tensors = dict(to_tensors(random_adapter(RANK, 3)))
    change(tensors)
    return save(tensors)


def with_number(value: float) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        key = next(key for key in tensors if "query.lora_B" in key)
        tensors[key] = tensors[key].copy()
        tensors[key][0, 0] = value

    return change


def key_of(part: str) -> str:
    return next(key for key in to_tensors(random_adapter(1, 0)) if part in key)


OTHER = AdapterSpec((ModuleSpec("layers.0.key", 6, 5), ModuleSpec("value", 9, 6)), scaling=2.0, max_rank=RANK)
WIDE = AdapterSpec(SPEC.modules, scaling=2.0, max_rank=RANK + 1)
A_KEY, B_KEY = key_of("out.lora_A"), key_of("out.lora_B")

BAD: dict[str, tuple[bytes, type[InputError]]] = {
    "nan": (changed(with_number(np.nan)), NonFiniteValues),
    "infinity": (changed(with_number(np.inf)), NonFiniteValues),
    "negative infinity": (changed(with_number(-np.inf)), NonFiniteValues),
    "missing module": (changed(lambda t: (t.pop(A_KEY), t.pop(B_KEY))), SpecMismatch),
    "missing factor": (changed(lambda t: t.pop(B_KEY)), SpecMismatch),
    "unknown module": (changed(lambda t: t.update(extra=t[A_KEY])), SpecMismatch),
    "wrong features": (changed(lambda t: t.update({A_KEY: np.ones((RANK, 8), np.float32)})), SpecMismatch),
    "turned factor": (changed(lambda t: t.update({A_KEY: t[A_KEY].T.copy()})), SpecMismatch),
    "ranks of two minds": (changed(lambda t: t.update({A_KEY: t[A_KEY][:1].copy()})), SpecMismatch),
    "one dimension": (changed(lambda t: t.update({A_KEY: t[A_KEY].ravel()})), SpecMismatch),
    "float64": (changed(lambda t: t.update({A_KEY: t[A_KEY].astype(np.float64)})), MalformedTensors),
    "rank above the maximum": (adapter_to_bytes(random_adapter(RANK + 1, 0, WIDE)), RankOutOfRange),
    "another specification": (adapter_to_bytes(random_adapter(2, 0, OTHER)), SpecMismatch),
    "no bytes": (b"", MalformedTensors),
    "no safetensors": (b"\x80\x04" * 40, MalformedTensors),
    "cut short": (adapter_to_bytes(random_adapter(RANK, 3))[:-4], MalformedTensors),
}


@every_rule
@pytest.mark.parametrize("kind", BAD)
def test_bad_update_among_good_ones_is_refused(name: str, kind: str) -> None:
    rule = opened(name)
    data, error = BAD[kind]
    bytes_of = {UpdateRef(str(number)): sent_back(rule, number)[1] for number in range(2)}
    bytes_of[UpdateRef("bad")] = data
    with pytest.raises(error):
        aggregate(rule, [*bytes_of], stored(rule, bytes_of))


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("method", ["none", "multi_krum", "trimmed_mean"])
def test_bad_update_among_good_ones_is_refused_by_a_defence(method: str, kind: str) -> None:
    rule = opened("rbla")
    data, error = BAD[kind]
    bytes_of = {UpdateRef("good"): sent_back(rule, 1)[1], UpdateRef("bad"): data}
    with pytest.raises(error):
        defend(Defence(method=method, clip=True), [*bytes_of], stored(rule, bytes_of))


@every_rule
def test_round_without_updates_is_refused(name: str) -> None:
    rule = opened(name)
    with pytest.raises(StateConflict, match="no update"):
        aggregate(rule, [], stored(rule, {}))


def aggregated(name: str, numbers: list[int], count: int = 1) -> Aggregate:
    """Updates of these numbers, which may stand more than once."""
    rule = opened(name)
    refs = [UpdateRef(f"{number:03d}", count) for number in numbers]
    bytes_of = {ref: sent_back(rule, int(ref.sha256))[1] for ref in refs}
    return aggregate(rule, refs, stored(rule, bytes_of))


@every_rule
def test_one_update_is_all_of_the_weight(name: str) -> None:
    result = aggregated(name, [1], count=7)
    assert_sound(result.state)
    assert [*result.weights.values()] == pytest.approx([1.0])


@every_rule
def test_update_that_came_more_than_once_counts_each_time(name: str) -> None:
    twice, other = aggregated(name, [1, 2, 1]), aggregated(name, [2, 1, 1])
    assert twice.state.adapter.values.tobytes() == other.state.adapter.values.tobytes()
    first, second = (twice.weights[UpdateRef(f"{number:03d}")] for number in (1, 2))
    assert 2 * first + second == pytest.approx(1.0)
    # As two devices whose updates are equal, under names of their own.
    rule = opened(name)
    refs = [UpdateRef("001"), UpdateRef("001 again"), UpdateRef("002")]
    bytes_of = {ref: sent_back(rule, int(ref.sha256[:3]))[1] for ref in refs}
    named = aggregate(rule, refs, stored(rule, bytes_of))
    assert_same(effective(named.state), effective(twice.state), 1e-6)


@every_rule
def test_norms_that_are_all_zero_are_a_defined_result(name: str) -> None:
    # Before the first round nobody has a product, and nobody learns one.
    rule = open_rule(CASES[name].rule, first_state(CASES[name].rule, initial()))
    updates = {
        UpdateRef(str(number), 1 + number): as_sent(rule.distribute(rank, number), 1 + number)
        for number, rank in enumerate(fitting(name, [1, 2, RANK]))
    }
    result = aggregate(rule, [*updates], updates.__getitem__)
    assert_sound(result.state)
    assert not any(product.any() for product in effective(result.state).values())
    assert sum(result.weights.values()) == pytest.approx(1.0)


@every_rule
@pytest.mark.parametrize("size", [1e-30, 1e18, 3e38])
def test_numbers_at_the_ends_of_float32_give_a_finite_result(name: str, size: float) -> None:
    rule = opened(name)
    updates = {}
    for number in range(3):
        update = trained(rule.distribute(RANK, number), number)
        largest = np.abs(update.adapter.values).max()
        scaled = update.adapter.values / largest * np.float32(size)
        updates[UpdateRef(str(number))] = replace(update, adapter=update.adapter.with_values(scaled))
    assert_sound(aggregate(rule, [*updates], updates.__getitem__).state)


@pytest.mark.parametrize("name", ["flexlora", "residual_exact"])
def test_result_that_passes_float32_is_refused(name: str) -> None:
    # B A of ones times 3e38 has one singular value, 4 * 9e76 * sqrt(5 * 6) = 2e78, and its balanced factors
    # hold sqrt(2e78 / 5) = 6e38 and more.
    rule = opened(name)
    sent = rule.distribute(RANK).received
    update = Update(sent.with_values(np.full_like(sent.values, 3e38)), 1, sent)
    with pytest.raises(NonFiniteValues, match="passes float32"):
        aggregate(rule, [UpdateRef("ones")], lambda ref: update)
    with pytest.raises(NonFiniteValues):
        aggregate(with_optimizer(rule, ServerMomentum()), [UpdateRef("ones")], lambda ref: update)
