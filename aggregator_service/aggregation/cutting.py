"""Stacked adapters cut to a rank."""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.stacks import StackedAdapter, empty


def truncated(adapter: StackedAdapter, rank: int) -> StackedAdapter:
    """The leading `rank` ranks of every module (HetLoRA, distribution); a narrower module stays as it is."""
    kept = [min(rank, at.rank) for at in adapter.layout]
    cut = empty(adapter.spec, kept, np.float32)
    for into, stack in zip(cut, adapter, strict=True):
        into.lora_A[:] = stack.lora_A[:, : into.rank]
        into.lora_B[:] = stack.lora_B[:, :, : into.rank]
    ranks = adapter.module_ranks
    own = None if ranks is None else tuple(np.minimum(given, rank) for given in ranks)
    return StackedAdapter(adapter.spec, cut.values, cut.layout, own)
