"""One result whatever the order of arrival: a fixed reduction tree over sorted updates.

Floating-point addition is not associative, so the sorted references alone fix the shape of the sum: leaves of
`LEAF_SIZE` updates added in order, then merged pairwise as a binary counter carries (the largest power of
two of leaves that leaves a rest, reduced, plus that rest, reduced). At most log2(leaves) + 2 partials are
alive at a time; beside them only one float per update is kept, its weight.

Whoever reduces whole subtrees, `SUBTREE_LEAVES` leaves each, and merges them in the same shape gets the same
bits: that is how several processes share a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from aggregator_service.aggregation.rule import GlobalState, Rule, Update, UpdateRef
from hetlora.errors import NonFiniteValues, StateConflict

# In-place sums are cheaper than merges; part of the result's definition: another size, other last bits.
LEAF_SIZE: Final = 32
# What a worker takes at a time, a power of two: 128 updates, so that few partials travel between processes.
SUBTREE_LEAVES: Final = 4

Partial = TypeVar("Partial")
Load = Callable[[UpdateRef], Update]


def one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread: how many it had would show in the last bits of a product."""
    limited: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limited


@dataclass(frozen=True, slots=True, eq=False)
class Subtotal(Generic[Partial]):
    """The partial of a subtree, and the raw weights of its updates in their order."""

    partial: Partial
    raw_weights: tuple[float, ...]


@dataclass(slots=True)
class Carry(Generic[Partial]):
    """Merges partials that come in order as a binary counter carries."""

    rule: Rule[Partial]
    _stack: list[tuple[int, Partial]] = field(default_factory=list)  # (height, partial), heights falling

    def push(self, partial: Partial, height: int) -> None:
        """Take in the next partial, of 2^height leaves or of the rest."""
        while self._stack and self._stack[-1][0] == height:
            partial, height = self.rule.merge(self._stack.pop()[1], partial), height + 1
        self._stack.append((height, partial))

    def total(self) -> Partial:
        """The partial of all that came; to be asked once."""
        total = self._stack.pop()[1]
        while self._stack:
            total = self.rule.merge(self._stack.pop()[1], total)
        return total


def subtrees(refs: Iterable[UpdateRef]) -> Iterator[tuple[UpdateRef, ...]]:
    """The updates in their order, cut into what one worker reduces at a time."""
    ordered, size = sorted(refs), SUBTREE_LEAVES * LEAF_SIZE
    return (tuple(ordered[start : start + size]) for start in range(0, len(ordered), size))


def reduce_subtree(rule: Rule[Partial], refs: Sequence[UpdateRef], load: Load) -> Subtotal[Partial]:
    """Read and add the updates of one subtree, a leaf at a time."""
    carry = Carry(rule)
    raw: list[float] = []
    with one_thread():
        for start in range(0, len(refs), LEAF_SIZE):
            leaf = [load(ref) for ref in refs[start : start + LEAF_SIZE]]
            partial = rule.init()
            raw += rule.accumulate(partial, leaf)
            carry.push(partial, 0)
        return Subtotal(carry.total(), tuple(raw))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The state after a round, and the aggregation weight of each of its updates."""

    state: GlobalState
    weights: dict[UpdateRef, float]


def finish(
    rule: Rule[Partial], refs: Iterable[UpdateRef], subtotals: Iterable[Subtotal[Partial]]
) -> Aggregate:
    """Merge what the workers made of `subtrees(refs)`, in that order.

    Raises:
        StateConflict: there is no update.
        NonFiniteValues: a number of the state after the round passes float32.
    """
    carry = Carry(rule)
    raw: list[float] = []
    with one_thread():
        for subtotal in subtotals:
            carry.push(subtotal.partial, SUBTREE_LEAVES.bit_length() - 1)
            raw += subtotal.raw_weights
        return conclude(rule, refs, carry.total() if raw else None, raw)


def conclude(
    rule: Rule[Partial], refs: Iterable[UpdateRef], total: Partial | None, raw_weights: Sequence[float]
) -> Aggregate:
    """The aggregate, given the partial of all updates and their raw weights in their order.

    Raises:
        StateConflict: there is no update.
        NonFiniteValues: a number of the state after the round passes float32.
    """
    if total is None:
        raise StateConflict("no update to aggregate", got=0, expected="at least one")
    with one_thread():
        weights = {
            ref: rule.weight(total, value) for ref, value in zip(sorted(refs), raw_weights, strict=True)
        }
        with np.errstate(over="ignore", invalid="ignore"):  # what passes float32 is refused below
            state = rule.finish(total)
    _check_finite(state)
    return Aggregate(state, weights)


def _check_finite(state: GlobalState) -> None:
    adapters = [state.adapter] if state.frozen is None else [state.adapter, state.frozen]
    for numbers in (*(adapter.values for adapter in adapters), *state.tensors.values()):
        if not np.isfinite(numbers).all():
            raise NonFiniteValues("the result of the round passes float32", expected="finite numbers")


def aggregate(rule: Rule[Partial], refs: Sequence[UpdateRef], load: Load) -> Aggregate:
    """Reduce updates in this process, holding one leaf of them at a time.

    Args:
        refs: at least one; equal refs are equal updates, and each counts.
        load: reads the update of a ref.

    Raises:
        StateConflict: there is no update.
        NonFiniteValues: a number of the state after the round passes float32.
    """
    return finish(rule, refs, (reduce_subtree(rule, part, load) for part in subtrees(refs)))
