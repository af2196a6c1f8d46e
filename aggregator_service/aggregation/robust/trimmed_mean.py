"""Coordinate-wise trimmed mean and median (Yin, Chen, Ramchandran, Bartlett, arXiv 1803.01498), by rank band.

    dA*[i, :] = trimmed mean over the updates k that hold rank i of dA_k[i, :],   dB*[:, i] likewise

of what factors moved against what was sent. On zero-padded factors the median of a rank that fewer than
half hold would be zero, and high ranks would be erased (methods.md, D.3): here a rank is looked at among its
owners alone.

1. Of a cohort of n, the ceil(`hostile_share` n) smallest and largest values of each number are left out, as
   far as one or two are kept. Not that share of the owners: a device chooses its rank, and all hostile ones
   may be among the owners of one. The median keeps one or two values. Both hold as long as fewer than half of
   the owners of a rank are hostile.
2. A rank with fewer than `LEAST_OWNERS` owners (or the defence's quorum, if that is more) does not move:
   among two there is no middle, and one would own it.
3. Every update becomes what its device was sent plus (dA*, dB*) at the ranks that it holds: the same for all,
   so that any rule takes any mean of them, redistributes and keeps its state as ever. With equal ranks,
   zero-padding gives what was sent plus the trimmed mean; over unequal ranks, the rule's own ways remain.

Coordinates are those of what was sent. Devices are sent the same ranks of one adapter, and train from there,
so that they mean the same for all; a device that turns its factors is an outlier in them, and trimmed. Ranks
or entries that a device was sent and did not send back count as unmoved (LoRA-A2, FLASC): of sparse changes
few pass a median.

All updates of a module are needed at once. They are read again for each slab of modules, of up to
`SLAB_BYTES` or one module, so that memory grows with the cohort only where one module passes that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.robust.line import at_share, step
from aggregator_service.aggregation.robust.ownership import holding, owners_of
from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.stacks import Floats, Stack, StackedAdapter, groups_of, zeros
from aggregator_service.aggregation.tree import Load
from hetlora.adapter import AdapterSpec

SLAB_BYTES: Final = 2**28
LEAST_OWNERS: Final = 3


def trimmed_mean(values: Floats, left_out: int) -> Floats:
    """The mean of (owners, numbers) over the owners, so many values of each number left out at either end.

    One or two are always kept: with half of the owners or more left out, it is the median.
    """
    count = len(values)
    trim = min(left_out, (count - 1) // 2)
    # Sorted before they are added: the sum is the same whatever the order of the updates.
    return np.asarray(np.sort(values, axis=0)[trim : count - trim].mean(axis=0))


def common_step(refs: Sequence[UpdateRef], load: Load, left_out: int, quorum: int) -> StackedAdapter:
    """(dA*, dB*) of a cohort in float64, as wide as its widest update, zero where too few hold a rank.

    Args:
        left_out: values of each number that are left out at either end, see `trimmed_mean`.
    """
    owners = owners_of(map(load, refs))
    width = owners[0].shape[1]
    spec = load(refs[0]).adapter.spec
    result = zeros(spec, [width] * len(owners))
    stacks = [*result]
    for group, modules in _slabs(spec, len(refs), width):
        moved, held = _moved(refs, load, group, modules, width)
        into = stacks[group]
        for module, rank in np.argwhere(owners[group][modules] >= max(quorum, LEAST_OWNERS)):
            own, at = held[:, module, rank], modules.start + module
            into.lora_A[at, rank] = trimmed_mean(moved.lora_A[own, module, rank], left_out)
            into.lora_B[at, :, rank] = trimmed_mean(moved.lora_B[own, module, rank], left_out)
    return result


def _slabs(spec: AdapterSpec, count: int, width: int) -> Iterator[tuple[int, slice]]:
    for index, group in enumerate(groups_of(spec)):
        bytes_each = 8 * count * max(width, 1) * (group.in_features + group.out_features)
        size = max(1, SLAB_BYTES // bytes_each)
        for start in range(0, len(group), size):
            yield index, slice(start, min(start + size, len(group)))


def _moved(
    refs: Sequence[UpdateRef],
    load: Load,
    group: int,
    modules: slice,
    width: int,
) -> tuple[Stack, NDArray[np.bool_]]:
    """What both factors moved, (updates, modules, global ranks, features), and which ranks are held.

    What is not held is zero.
    """
    result, held = None, []
    for number, ref in enumerate(refs):
        update = load(ref)
        own = holding(update)
        held.append(own.held(group, width)[modules])
        assert update.received is not None, "a change is against what was sent"
        before, after = ([*adapter][group] for adapter in (update.received, update.adapter))
        _, change = step(_part(before, modules), _part(after, modules))
        if result is None:
            count, _, wide = change.lora_A.shape
            shape = (len(refs), count, width)
            result = Stack(np.zeros((*shape, wide)), np.zeros((*shape, change.lora_B.shape[1])))
        places = own.places[: after.rank]
        result.lora_A[number][:, places] = change.lora_A[:, : after.rank]
        result.lora_B[number][:, places] = change.lora_B[:, :, : after.rank].swapaxes(1, 2)
    assert result is not None, "a defence stands before at least one update"
    return result, np.array(held)


def _part(stack: Stack, modules: slice) -> Stack:
    return Stack(stack.lora_A[modules], stack.lora_B[modules])


def moved_together(update: Update, common: StackedAdapter) -> Update:
    """What the device was sent, plus the common step at the ranks that its update holds."""
    own = holding(update)
    still = at_share(update, 0.0).adapter
    result = update.adapter.with_values(np.zeros_like(update.adapter.values))
    for into, sent, moved, ranks in zip(result, still, common, own.ranks, strict=True):
        places = own.places[: into.rank]
        held = np.arange(into.rank) < ranks[:, None]
        into.lora_A[:] = held[:, :, None] * (sent.lora_A[:, : into.rank] + moved.lora_A[:, places])
        into.lora_B[:] = held[:, None, :] * (sent.lora_B[:, :, : into.rank] + moved.lora_B[:, :, places])
    return replace(update, adapter=result)
