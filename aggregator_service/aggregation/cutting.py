"""Stacked adapters cut to ranks, and what the cut leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.stacks import StackedAdapter, zeros_of

ModuleRanks = Sequence[NDArray[np.intp]]  # of each module, group by group


def truncated(adapter: StackedAdapter, rank: int) -> StackedAdapter:
    """The leading `rank` ranks of every module (HetLoRA, distribution); a narrower module stays as it is."""
    return cut(adapter, [np.minimum(own, rank) for own in adapter.ranks])


def cut(adapter: StackedAdapter, ranks: ModuleRanks) -> StackedAdapter:
    """The leading ranks of each module, as many as given; none has more than the adapter."""
    result = zeros_of(adapter.spec, ranks, np.float32)
    for into, stack, own in zip(result, adapter, ranks, strict=True):
        held = np.arange(into.rank) < own[:, None]
        into.lora_A[:] = stack.lora_A[:, : into.rank] * held[:, :, None]
        into.lora_B[:] = stack.lora_B[:, :, : into.rank] * held[:, None, :]
    return result


def remainder(adapter: StackedAdapter, ranks: ModuleRanks) -> StackedAdapter | None:
    """What `cut` leaves: the ranks of each module from its own on, moved to the front; None if it is nothing.

    Ranks whose product is zero are not part of it.
    """
    left = []
    for stack, own in zip(adapter, ranks, strict=True):
        alive = np.any(stack.lora_B != 0, axis=1) & (np.arange(stack.rank) >= own[:, None])
        left.append(alive)
    counts = tuple(alive.sum(axis=1).astype(np.intp) for alive in left)
    if not any(own.any() for own in counts):
        return None
    result = zeros_of(adapter.spec, counts, np.float32)
    for into, stack, alive in zip(result, adapter, left, strict=True):
        for number, keep in enumerate(alive):
            width = int(keep.sum())
            into.lora_A[number, :width] = stack.lora_A[number, keep]
            into.lora_B[number, :, :width] = stack.lora_B[number][:, keep]
    return result
