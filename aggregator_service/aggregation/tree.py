"""One result whatever the order of arrival: a fixed reduction tree over sorted updates.

Floating-point addition is not associative, so the sorted references alone fix the shape of the sum: leaves of
`LEAF_SIZE` updates, added in order and by batches of `BATCH_SIZE` or, where those are larger, of as many as
come to `BATCH_BYTES`, then merged as a counter with `FAN_IN` digits carries. Some log_64(leaves) + 2 partials
are alive at a time; beside them only one float per update is kept, its weight.

Whoever reduces whole leaves and merges them in the same shape gets the same bits: that is how several
processes share a round, and how one goes on with what another has reached (`progress.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Generic, TypeVar

import numpy as np
import scipy.linalg  # noqa: F401  # brings a BLAS of its own, which `_blas` shall know
from threadpoolctl import ThreadpoolController

from aggregator_service.aggregation.progress import BEGINNING, NOWHERE, Digit, Progress, Reached
from aggregator_service.aggregation.rule import GlobalState, Rule, Update, UpdateRef
from hetlora.adapter import AdapterSpec
from hetlora.errors import NonFiniteValues, SettingsError, SpecMismatch, StateConflict
from hetlora.messages.common import MAX_INTEGER

# All four are part of the result's definition: another size, other last bits.
LEAF_SIZE: Final = 128  # what a worker takes at a time, so that few partials travel between processes
BATCH_SIZE: Final = 32  # updates in memory at a time; those of one layout are summed by one product
BATCH_BYTES: Final = 2**25  # of the numbers of a batch, at which it ends before it is full
FAN_IN: Final = 64

Partial = TypeVar("Partial")
Load = Callable[[UpdateRef], Update]


def one_thread() -> AbstractContextManager[object]:
    """BLAS on one thread: how many it had would show in the last bits of a product."""
    limited: AbstractContextManager[object] = _blas().limit(limits=1, user_api="blas")
    return limited


@cache
def _blas() -> ThreadpoolController:
    """Found once: a look through all that a process has loaded takes longer than a small round."""
    return ThreadpoolController()


@dataclass(frozen=True, slots=True, eq=False)
class Subtotal(Generic[Partial]):
    """The partial of a leaf, and the raw weights of its updates in their order."""

    partial: Partial
    raw_weights: tuple[float, ...]


@dataclass(slots=True)
class Carry(Generic[Partial]):
    """Merges the partials of leaves, which come in order, as a counter with `FAN_IN` digits carries.

    So few are alive at a time: one for each digit, and the one that comes.
    """

    rule: Rule[Partial]
    digits: list[Digit[Partial]] = field(default_factory=list)  # lowest first

    @property
    def leaf_count(self) -> int:
        """How many leaves came."""
        return sum(digit[0] * FAN_IN**place for place, digit in enumerate(self.digits) if digit is not None)

    def push(self, partial: Partial) -> None:
        """Take in the partial of the next leaf."""
        for place, digit in enumerate(self.digits):
            count, merged = (
                (1, partial) if digit is None else (digit[0] + 1, self.rule.merge(digit[1], partial))
            )
            if count < FAN_IN:
                self.digits[place] = (count, merged)
                return
            self.digits[place], partial = None, merged
        self.digits.append((1, partial))

    def total(self) -> Partial:
        """The partial of all that came; to be asked once."""
        found = [digit[1] for digit in self.digits if digit is not None]
        self.digits.clear()
        total = found.pop(0)
        while found:
            total = self.rule.merge(found.pop(0), total)
        return total


def leaves(refs: Iterable[UpdateRef], first: int = 0) -> Iterator[tuple[UpdateRef, ...]]:
    """The updates in their order, cut into what one worker reduces at a time; from a certain leaf on."""
    ordered = sorted(refs)
    starts = range(first * LEAF_SIZE, len(ordered), LEAF_SIZE)
    return (tuple(ordered[start : start + LEAF_SIZE]) for start in starts)


def reduce_leaf(rule: Rule[Partial], refs: Sequence[UpdateRef], load: Load) -> Subtotal[Partial]:
    """Read and add the updates of one leaf, a batch at a time.

    Raises:
        SpecMismatch: an update, or what its device was sent, is of another adapter specification.
        SettingsError: an example count is no positive number, or more than float64 counts one by one.
        RankOutOfRange: an update is wider than the run.
    """
    partial = rule.init()
    raw: list[float] = []
    with one_thread():
        for batch in _batches(refs, load):
            _check_batch(batch, rule.spec)
            with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are refused at the end
                raw += rule.accumulate(partial, batch)
            del batch  # before the next one is read
    return Subtotal(partial, tuple(raw))


def _batches(refs: Sequence[UpdateRef], load: Load) -> Iterator[list[Update]]:
    """Cut where the updates alone say, so that everybody cuts alike. None is held on to here."""
    batch: list[Update] = []
    size_bytes = 0
    for ref in refs:
        batch.append(load(ref))
        size_bytes += batch[-1].adapter.values.nbytes
        if len(batch) == BATCH_SIZE or size_bytes >= BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _check_batch(batch: Sequence[Update], spec: AdapterSpec) -> None:
    """What is cheap to check; to look at each number is left to who reads them, and to the end of a round."""
    for update in batch:
        if not 1 <= update.example_count <= MAX_INTEGER:
            raise SettingsError(
                "example count of an update", got=update.example_count, expected=f"1 to {MAX_INTEGER}"
            )
    adapters = [own for update in batch for own in (update.adapter, update.received) if own is not None]
    # Most share one specification, and to compare two is to compare each of their modules.
    for other in {id(own.spec): own.spec for own in adapters}.values():
        if other is not spec and other != spec:
            raise SpecMismatch(
                "update of another adapter specification",
                got=_told_from(other, spec),
                expected=_told_from(spec, other),
            )


def _told_from(spec: AdapterSpec, other: AdapterSpec) -> str:
    """A specification in the words that tell it from another."""
    modules = [module for module in spec.modules if other.by_name.get(module.name) != module]
    own = f"{len(modules)} modules of its own, the first {modules[0]}" if modules else "no module of its own"
    return f"scaling {spec.scaling}, max_rank {spec.max_rank}, {own}"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The state after a round, and the aggregation weight of each of its updates."""

    state: GlobalState
    weights: dict[UpdateRef, float]


def finish(
    rule: Rule[Partial],
    refs: Iterable[UpdateRef],
    subtotals: Iterable[Subtotal[Partial]],
    begun: Reached[Partial] = BEGINNING,
    progress: Progress = NOWHERE,
) -> Aggregate:
    """Merge what the workers made of `leaves(refs, begun.leaf_count)`, in that order.

    Raises:
        StateConflict: there is no update.
        NonFiniteValues: a number of the state after the round passes float32.
    """
    carry = Carry(rule, [*begun.digits])
    raw = [*begun.raw_weights]
    with one_thread():
        for subtotal in subtotals:
            carry.push(subtotal.partial)
            raw += subtotal.raw_weights
            if progress.due(carry.leaf_count):
                progress.keep(Reached(carry.leaf_count, (*carry.digits,), (*raw,)))
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
    """Reduce updates in this process, holding one batch of them at a time.

    Args:
        refs: at least one; equal refs are equal updates, and each counts.
        load: reads the update of a ref.

    Raises:
        StateConflict: there is no update.
        NonFiniteValues: a number of the state after the round passes float32.
        SpecMismatch, SettingsError, RankOutOfRange: see `reduce_leaf`.
    """
    return finish(rule, refs, (reduce_leaf(rule, leaf, load) for leaf in leaves(refs)))
