"""The sum that every rule over factors keeps: weighted, zero-padded factors, and who holds which rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.finite import check_finite
from aggregator_service.aggregation.stacks import Array, Floats, Spacing, StackedAdapter, groups_of, zeros
from hetlora.adapter import AdapterSpec
from hetlora.errors import RankOutOfRange

CHUNK: Final = 4096  # numbers; a leaf's share of one chunk is 1 MB in float64, half of a second-level cache


@dataclass(slots=True)
class SliceSum:
    """Sums over some updates, all in float64.

    `values` holds the weighted factors padded to one rank. Per group, `held` (modules, rank) is the weight
    of the updates that hold a rank of a module, `owners` their number, and `weight` (modules,) all weight.
    """

    values: StackedAdapter
    held: list[Floats]
    owners: list[NDArray[np.int64]]
    weight: list[Floats]
    count: int = 0

    @classmethod
    def zero(cls, spec: AdapterSpec, rank: int) -> SliceSum:
        """The sum of nothing, padded to `rank`."""
        groups = groups_of(spec)
        return cls(
            zeros(spec, [rank] * len(groups)),
            [np.zeros((len(group), rank)) for group in groups],
            [np.zeros((len(group), rank), np.int64) for group in groups],
            [np.zeros(len(group)) for group in groups],
        )

    @property
    def rank(self) -> int:
        """What updates are padded to."""
        return self.values.rank

    @property
    def total_weight(self) -> float:
        """All weight, where it is the same of every module."""
        return float(self.weight[0][0])

    def add(self, adapters: Sequence[StackedAdapter], weights: Sequence[float] | Floats) -> None:
        """Add adapters with one weight each.

        Those of one layout are summed flat, in their order, before they are padded: the order of additions
        follows from the sequence alone.
        """
        weights = np.asarray(weights, np.float64)
        by_layout: dict[tuple[Spacing, ...], list[int]] = {}
        for number, adapter in enumerate(adapters):
            by_layout.setdefault(adapter.layout, []).append(number)
        for numbers in by_layout.values():
            same = [adapters[number] for number in numbers]
            flat = flat_sum([adapter.values for adapter in same], weights[numbers])
            self._pad_in(same[0].with_values(flat))
            if all(adapter.module_ranks is None for adapter in same):
                self._note(same[0].ranks, float(weights[numbers].sum()), len(same))
            else:
                for number in numbers:
                    self._note(adapters[number].ranks, float(weights[number]), 1)
        self.count += len(adapters)

    def add_by_module(self, adapter: StackedAdapter, weights: Sequence[Floats]) -> None:
        """Add one adapter with a weight for each module, given group by group."""
        for into, stack, own in zip(self.values, adapter, weights, strict=True):
            scale = own[:, None, None]
            into.lora_A[:, : stack.rank] += scale * stack.lora_A
            into.lora_B[:, :, : stack.rank] += scale * stack.lora_B
        self._note(adapter.ranks, weights, 1)
        self.count += 1

    def _pad_in(self, total: StackedAdapter) -> None:
        for into, stack in zip(self.values, total, strict=True):
            into.lora_A[:, : stack.rank] += stack.lora_A
            into.lora_B[:, :, : stack.rank] += stack.lora_B

    def _note(self, ranks: Sequence[NDArray[np.intp]], weights: float | Sequence[Floats], count: int) -> None:
        for index, own in enumerate(ranks):
            weight = weights if isinstance(weights, float) else weights[index]
            holds = np.arange(self.rank) < own[:, None]
            self.held[index] += holds.astype(np.float64) * np.reshape(weight, (-1, 1))
            self.owners[index] += holds.astype(np.int64) * count
            self.weight[index] += weight

    def merge(self, other: SliceSum) -> SliceSum:
        """Take another sum in."""
        self.values.values[:] += other.values.values
        for index in range(len(self.held)):
            self.held[index] += other.held[index]
            self.owners[index] += other.owners[index]
            self.weight[index] += other.weight[index]
        self.count += other.count
        return self

    def divided(self, divisors: Sequence[Floats]) -> StackedAdapter:
        """The sum in float32, each rank of each module divided by its own number, 1 where that is zero.

        Args:
            divisors: (modules, rank) or (modules, 1), group by group.
        """
        result = self.values.with_values(np.empty(self.values.values.size, np.float32))
        for into, stack, given in zip(result, self.values, divisors, strict=True):
            divisor = np.where(given > 0, given, 1.0)
            # In float64, and rounded piece by piece: a whole copy of the sum would be the most of a round.
            np.divide(stack.lora_A, divisor[:, :, None], out=into.lora_A, casting="same_kind")
            np.divide(stack.lora_B, divisor[:, None, :], out=into.lora_B, casting="same_kind")
        return result

    def mean(self) -> StackedAdapter:
        """The sum divided by all weight: what an update does not hold counts as zero."""
        return self.divided([weight[:, None] for weight in self.weight])


def flat_sum(arrays: Sequence[Array], weights: Floats) -> Floats:
    """The weighted sum of flat arrays of one length, in float64 and in the order of the arrays.

    Raises:
        NonFiniteValues: NaN or infinity in an array, which float32 cannot come to in float64 by itself.
    """
    total = np.empty(arrays[0].size)
    whole = total.size - total.size % CHUNK
    # Rows of a view come in half the time of slices, which shows: a row takes no longer to add.
    _sum_rows(total[:whole], [array[:whole] for array in arrays], weights, CHUNK)
    _sum_rows(total[whole:], [array[whole:] for array in arrays], weights, total.size - whole)
    if not np.isfinite(total.sum()):
        for array in arrays:
            check_finite(array)
    return total


def _sum_rows(total: Floats, arrays: Sequence[Array], weights: Floats, width: int) -> None:
    """The sum of arrays of a multiple of `width`, so many numbers at a time."""
    if total.size == 0:
        return
    wide = np.empty((len(arrays), width))
    chunks = zip(*(array.reshape(-1, width) for array in arrays), strict=True)
    for into, parts in zip(total.reshape(-1, width), chunks, strict=True):
        np.concatenate(parts, out=wide.reshape(-1))
        np.dot(weights, wide, out=into)


def check_rank(adapter: StackedAdapter, rank: int) -> None:
    """Raise unless an update fits the run.

    Raises:
        RankOutOfRange: it is wider.
    """
    if adapter.rank > rank:
        raise RankOutOfRange("update is wider than the run", got=adapter.rank, expected=f"0 to {rank}")
