"""Whoever goes on with a reduction reads what is left of it, and comes to the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from cases import CASES
from cohorts import random_adapter
from engine_rounds import bits, stored_round
from every_rule import every_rule, opened
from hypothesis import given
from hypothesis import strategies as st
from keeping import Counted, Keeping, bytes_of

from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.aggregation.packing import is_bounded
from aggregator_service.aggregation.progress import Reached
from aggregator_service.aggregation.rules.product_rule import ProductPartial
from aggregator_service.aggregation.sketch import ProductSketch
from aggregator_service.aggregation.stacks import stacked
from aggregator_service.aggregation.tree import FAN_IN, LEAF_SIZE, Carry
from aggregator_service.worker.reached import reached_from_bytes
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import MalformedTensors

TOO_LARGE_FOR_A_STACK = 10**12
COUNT = 2 * LEAF_SIZE + 40


@every_rule
def test_death_after_any_leaf_changes_no_bit(name: str, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, CASES[name].rule, COUNT)
    rule = replace(cast(Any, rule), rank_total=TOO_LARGE_FOR_A_STACK)
    progress = Keeping()
    expected = bits(LocalEngine().aggregate(rule, refs, source))
    assert bits(LocalEngine().aggregate(rule, refs, source, progress)) == expected
    assert list(progress.kept) == [1, 2, 3]
    whole = dict(progress.kept)
    for reached in whole:
        counted, again = Counted(source), Keeping(reached, dict(whole))
        assert bits(LocalEngine().aggregate(rule, refs, counted, again)) == expected
        assert counted.reads == max(COUNT - reached * LEAF_SIZE, 0)
        assert again.kept == whole


class Adding:
    """A rule whose partials are numbers, of which no two orders of addition give one sum."""

    def merge(self, left: float, right: float) -> float:
        return left + right


def carried(numbers: Sequence[float], begun: Reached[float]) -> Carry[float]:
    carry = Carry(cast(Any, Adding()), [*begun.digits])
    for number in numbers[begun.leaf_count :]:
        carry.push(number)
    return carry


@given(count=st.integers(1, 3 * FAN_IN**2), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_carry_goes_on_from_any_leaf_of_any_number(count: int, share: float, seed: int) -> None:
    numbers = np.random.default_rng(seed).standard_normal(count).tolist()
    begun = carried(numbers[: round(share * count)], Reached())
    assert begun.leaf_count == round(share * count)
    reached = Reached(begun.leaf_count, (*begun.digits,))
    if begun.leaf_count:
        reached = reached_from_bytes(bytes_of(reached), SPEC, 0.0)
    assert carried(numbers, reached).total() == carried(numbers, Reached()).total()


SPEC = AdapterSpec((ModuleSpec("broad", 300, 200), ModuleSpec("narrow", 3, 200)), scaling=1.0, max_rank=2)


def test_sketch_comes_back_to_the_last_bit() -> None:
    empty = ProductPartial(ProductSketch.zero(SPEC, 2))
    partial = ProductPartial(ProductSketch.zero(SPEC, 2), 0.1)
    assert isinstance(partial.products, ProductSketch)
    assert [own.size > 0 for own in partial.products.rows] == [True, False]  # one sketched, one whole
    partial.products.add([stacked(random_adapter(2, 1, SPEC))], [0.3])
    back = reached_from_bytes(bytes_of(Reached(1, ((1, partial),), (0.1,))), SPEC, empty)
    assert (back.leaf_count, back.raw_weights) == (1, (0.1,))
    ((count, own),) = cast(Any, back.digits)
    assert (count, own.weight, own.products.rank) == (1, 0.1, 2)
    for name in ("ranges", "rows"):
        for left, right in zip(getattr(own.products, name), getattr(partial.products, name), strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.flags.writeable


@pytest.mark.parametrize("name", ["flexlora", "fedex", "raflora", "residual_exact"])
def test_stack_is_no_smaller_than_what_it_is_of(name: str) -> None:
    assert not is_bounded(opened(name).init())
    assert is_bounded(opened(name, TOO_LARGE_FOR_A_STACK).init())


def test_bytes_of_something_else_are_refused(tmp_path: Path) -> None:
    rule = opened("zero_pad")
    good = bytes_of(Reached(1, ((1, rule.init()),), (1.0,)))
    assert reached_from_bytes(good, rule.spec, rule.init()).leaf_count == 1
    for data in (b"", good[:-1], good + b"0", bytes_of(Reached(1, ((1, 0.5),)))):
        with pytest.raises(MalformedTensors):
            reached_from_bytes(data, rule.spec, rule.init())
    for other in ("replication", "hetlora", "flasc"):
        with pytest.raises(MalformedTensors):
            reached_from_bytes(good, rule.spec, opened(other).init())
        with pytest.raises(MalformedTensors):
            reached_from_bytes(bytes_of(Reached(1, ((1, opened(other).init()),))), rule.spec, rule.init())
