"""What a caller of the library may hand to any rule by mistake: each a typed error, whatever the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from cases import CASES
from cohorts import RANK, SPEC, state_bits, trained
from engine_rounds import Foreign, stored_round
from every_rule import assert_sound, every_rule, opened

from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.aggregation.optimizers import with_optimizer
from aggregator_service.aggregation.products import STACK_BYTES
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.aggregation.rules import RULES
from aggregator_service.aggregation.rules.mean_and_product import MeanAndProductRule
from aggregator_service.aggregation.rules.product_rule import ProductRule
from aggregator_service.aggregation.rules.raflora import RaFlora
from aggregator_service.aggregation.rules.residual_exact import ResidualExact
from aggregator_service.aggregation.stacks import Array, StackedAdapter, groups_of, zeros
from aggregator_service.aggregation.tree import LEAF_SIZE, Aggregate, aggregate
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import NonFiniteValues, RankOutOfRange, SettingsError, SpecMismatch
from hetlora.messages.server_optimizer import ServerMomentum


def with_one(rule: Rule, change: Callable[[Update], Update]) -> Aggregate:
    """The aggregate of three good updates, the second one changed."""
    updates = {UpdateRef(str(seed)): trained(rule.distribute(RANK, seed), seed) for seed in range(3)}
    updates[UpdateRef("1")] = change(updates[UpdateRef("1")])
    return aggregate(rule, [*updates], updates.__getitem__)


def of(spec: AdapterSpec) -> StackedAdapter:
    return zeros(spec, [RANK] * len(groups_of(spec)), np.float32)


MODULES = SPEC.modules
OTHERS = {
    "scaling": AdapterSpec(MODULES, 1.0, RANK),
    "highest rank": AdapterSpec(MODULES, 2.0, RANK + 1),
    "fewer modules": AdapterSpec(MODULES[:-1], 2.0, RANK),
    "more modules": AdapterSpec((*MODULES, ModuleSpec("past", 9, 6)), 2.0, RANK),
    "another name": AdapterSpec((*MODULES[:-1], ModuleSpec("past", 9, 6)), 2.0, RANK),
    "turned module": AdapterSpec((*MODULES[:-1], ModuleSpec("out", 6, 9)), 2.0, RANK),
    "wider module": AdapterSpec((*MODULES[:-1], ModuleSpec("out", 9, 7)), 2.0, RANK),
}
Kind = TypeVar("Kind")


def at_the_door(kinds: Iterable[Kind]) -> list[tuple[str, Kind]]:
    """One kind of mistake with every rule, every other with one: `tree` refuses before a rule is asked."""
    first, *others = kinds
    return [*((name, first) for name in CASES), *(("rbla", kind) for kind in others)]


@pytest.mark.parametrize(("name", "kind"), at_the_door(OTHERS))
def test_update_of_another_specification_is_refused(name: str, kind: str) -> None:
    with pytest.raises(SpecMismatch, match="another adapter specification"):
        with_one(opened(name), lambda update: replace(update, adapter=of(OTHERS[kind])))


@pytest.mark.parametrize(("name", "kind"), at_the_door(["scaling", "turned module"]))
def test_update_of_what_was_sent_under_another_specification_is_refused(name: str, kind: str) -> None:
    with pytest.raises(SpecMismatch, match="another adapter specification"):
        with_one(opened(name), lambda update: replace(update, received=of(OTHERS[kind])))


def test_refusal_tells_what_is_other_about_the_specification() -> None:
    with pytest.raises(SpecMismatch) as caught:
        with_one(opened("rbla"), lambda update: replace(update, adapter=of(OTHERS["wider module"])))
    own, wanted = (f"ModuleSpec(name='out', in_features=9, out_features={n})" for n in (7, 6))
    assert caught.value.got == f"scaling 2.0, max_rank 4, 1 modules of its own, the first {own}"
    assert caught.value.expected == f"scaling 2.0, max_rank 4, 1 modules of its own, the first {wanted}"


@every_rule
def test_update_of_an_equal_specification_counts_as_one_of_the_same(name: str) -> None:
    rule, equal = opened(name), AdapterSpec(tuple(replace(module) for module in MODULES), 2.0, RANK)
    same = with_one(rule, lambda update: update)
    read_elsewhere = with_one(rule, lambda u: replace(u, adapter=replace(u.adapter, spec=equal)))
    assert state_bits(read_elsewhere.state) == state_bits(same.state)


@pytest.mark.parametrize(("name", "count"), at_the_door([0, -1, 2**53, float("nan")]))
def test_example_count_that_is_none_is_refused(name: str, count: int) -> None:
    with pytest.raises(SettingsError, match=f"example count.*got {count}; expected 1 to {2**53 - 1}"):
        with_one(opened(name), lambda update: replace(update, example_count=count))


@every_rule
def test_largest_example_count_has_a_result(name: str) -> None:
    result = with_one(opened(name), lambda update: replace(update, example_count=2**53 - 1))
    assert_sound(result.state)
    assert sum(result.weights.values()) == pytest.approx(1.0)


def spoilt(value: float, factor: str, group: int) -> Callable[[Update], Update]:
    """With one number changed, of the last module of a group."""

    def change(update: Update) -> Update:
        values: Array = update.adapter.values.copy()
        adapter = update.adapter.with_values(values)
        getattr([*adapter][group], factor)[-1, 0, 0] = value
        return replace(update, adapter=adapter)

    return change


SUM_PRODUCTS = [
    name
    for name, case in CASES.items()
    if issubclass(RULES[type(case.rule)], ProductRule | MeanAndProductRule | RaFlora | ResidualExact)
]


# Of more ranks than a stack may hold, sums of products are kept whole: SPEC is too small to be sketched.
@pytest.mark.parametrize(
    ("name", "rank_total"),
    [
        *(pytest.param(name, 0, id=name) for name in CASES),
        *(pytest.param(name, STACK_BYTES, id=f"{name}-kept whole") for name in SUM_PRODUCTS),
    ],
)
@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_number_that_is_not_finite_is_refused(name: str, rank_total: int, factor: str, value: float) -> None:
    rule = opened(name, rank_total)
    for group in range(3):
        with pytest.raises(NonFiniteValues):
            with_one(rule, spoilt(value, factor, group))


@every_rule
@pytest.mark.parametrize("rank", [-1, 0, RANK + 1])
def test_rank_that_no_device_may_take_is_refused(name: str, rank: int) -> None:
    rule = opened(name)
    with pytest.raises(RankOutOfRange, match=f"got {rank}; expected {rule.smallest_rank} to {RANK}"):
        rule.distribute(rank)


def test_rank_that_no_device_may_take_is_refused_under_a_server_optimizer() -> None:
    rule = with_optimizer(opened("hetlora"), ServerMomentum())
    with pytest.raises(RankOutOfRange, match=f"got {RANK + 1}; expected 1 to {RANK}"):
        rule.distribute(RANK + 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_update_of_another_specification_is_refused_by_every_worker(tmp_path: Path, workers: int) -> None:
    rule, refs, source = stored_round(tmp_path, CASES["rbla"].rule, LEAF_SIZE + 1)
    foreign = Foreign(source, sorted(refs)[-1], of(OTHERS["scaling"]))
    with pytest.raises(SpecMismatch, match=r"got scaling 1\.0.*expected scaling 2\.0"):
        LocalEngine(workers).aggregate(rule, refs, foreign)
