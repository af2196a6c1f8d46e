"""The sum that rules over changes of factors keep: what updates moved, at the ranks that they hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.stacks import Array, Floats, StackedAdapter, groups_of, zeros
from hetlora.adapter import AdapterSpec


@dataclass(slots=True)
class ChangeSum:
    """Weighted changes of both factors against what was sent, float64, as wide as the run.

    A rank that a device was not sent, or no longer has, has not changed.
    """

    values: StackedAdapter
    weight: float = 0.0

    @classmethod
    def zero(cls, spec: AdapterSpec, rank: int) -> ChangeSum:
        """The sum of nothing."""
        return cls(zeros(spec, [rank] * len(groups_of(spec))))

    def add(self, update: Update, weight: float) -> None:
        """Add what one update changed, at the global ranks that are its own."""
        assert update.received is not None, "the sum is of changes"
        ranks = np.arange(update.adapter.rank) if update.ranks is None else np.array(update.ranks, np.intp)
        groups = zip(self.values, update.adapter, update.received, update.adapter.ranks, strict=True)
        for into, after, before, own in groups:
            held = weight * (np.arange(after.rank) < own[:, None])
            at = ranks[: after.rank]
            into.lora_A[:, at] += held[:, :, None] * _change(after.lora_A, before.lora_A, 1)
            into.lora_B[:, :, at] += held[:, None, :] * _change(after.lora_B, before.lora_B, 2)
        self.weight += weight

    def merge(self, other: ChangeSum) -> ChangeSum:
        """Take another sum in."""
        self.values.values[:] += other.values.values
        self.weight += other.weight
        return self

    def added_to(self, before: StackedAdapter) -> StackedAdapter:
        """An adapter of the same rank plus the mean change, float32."""
        result = self.values.with_values(self.values.values / self.weight)
        for into, stack in zip(result, before, strict=True):
            into.lora_A[:] += stack.lora_A
            into.lora_B[:] += stack.lora_B
        return result.with_values(result.values.astype(np.float32))


def change_norm(update: Update) -> float:
    """The Euclidean length of all that one update changed, of both factors at the ranks that it holds."""
    assert update.received is not None, "the length is of a change"
    total = 0.0
    for after, before, own in zip(update.adapter, update.received, update.adapter.ranks, strict=True):
        held = np.arange(after.rank) < own[:, None]
        total += float((_change(after.lora_A, before.lora_A, 1) ** 2 * held[:, :, None]).sum())
        total += float((_change(after.lora_B, before.lora_B, 2) ** 2 * held[:, None, :]).sum())
    return math.sqrt(total)


def _change(after: Array, before: Array, rank_axis: int) -> Floats:
    """The difference in float64, as wide as `after`; a rank that was not sent counts as zero before."""
    change = after.astype(np.float64)
    common = min(after.shape[rank_axis], before.shape[rank_axis])
    leading = tuple(slice(None, common) if axis == rank_axis else slice(None) for axis in range(3))
    change[leading] -= before[leading]
    return change
