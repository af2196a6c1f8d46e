"""Two-way rank allocation: each module's rank from the global spectrum, under a device's budget.

A device that can afford rank r has a budget of r (in_features + out_features) numbers, summed over all
modules, and may spend it unevenly (LoRA-A2, arXiv 2410.22815, shows that ranks chosen over the whole model
beat equal ones; AdaLoRA's allocation is kin). The gain of rank i of a module is s_i^2, the energy that the
device would otherwise not see; its price is in_features + out_features.

1. Every module gets `FLOOR_SHARE` of r, at least 1: what has no energy yet may grow.
2. Ranks are taken in the order of s_i^2 per number, as long as they fit; a rank is never taken before the one
   above it, as values fall.
3. What is left of the budget goes to the modules with the lowest ranks, in turn: these ranks are new ones.

Ranks go both ways from round to round: with the spectrum a module's share rises and falls, and a device whose
budget grew gets more. Nothing is remembered of what a device had before.
"""

from __future__ import annotations

import heapq
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.cutting import ModuleRanks
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of

FLOOR_SHARE: Final = 0.5


def allocate(state: StackedAdapter, rank: int, most: int) -> ModuleRanks:
    """The rank of each module, up to `most`, for a device that can afford `rank` in all of them.

    Args:
        state: in the gauge of `gauge.balanced`, so that the energy of rank i is ||B[:, i]||^2 ||A[i, :]||^2,
            at least `most` ranks wide.
    """
    groups = groups_of(state.spec)
    prices = np.concatenate([np.full(len(group), group.in_features + group.out_features) for group in groups])
    energies = np.concatenate(
        [
            np.sum(stack.lora_A[:, :most].astype(np.float64) ** 2, axis=2)
            * np.sum(stack.lora_B[:, :, :most].astype(np.float64) ** 2, axis=1)
            for stack in state
        ]
    )
    ranks = np.full(len(prices), min(max(1, int(FLOOR_SHARE * rank)), most), np.intp)
    left = int(rank * prices.sum() - (ranks * prices).sum())
    left = _spend_by_energy(ranks, energies, prices, left)
    _spend_in_turn(ranks, prices, left, most)
    return np.split(ranks, np.cumsum([len(group) for group in groups])[:-1])


def _spend_by_energy(
    ranks: NDArray[np.intp], energies: NDArray[np.float64], prices: NDArray[np.intp], left: int
) -> int:
    """Raise ranks in place by energy for the price; return what is left of the budget."""

    def offer(module: int) -> tuple[float, int]:
        return -float(energies[module, ranks[module]]) / float(prices[module]), module

    heap = [offer(module) for module in range(len(ranks)) if ranks[module] < energies.shape[1]]
    heapq.heapify(heap)
    while heap:
        gain, module = heapq.heappop(heap)
        if gain == 0:
            break
        if prices[module] > left:
            continue
        ranks[module] += 1
        left -= int(prices[module])
        if ranks[module] < energies.shape[1]:
            heapq.heappush(heap, offer(module))
    return left


def _spend_in_turn(ranks: NDArray[np.intp], prices: NDArray[np.intp], left: int, most: int) -> None:
    """Raise ranks in place, the lowest first, while any fits."""
    heap = [(int(rank), module) for module, rank in enumerate(ranks) if rank < most]
    heapq.heapify(heap)
    while heap:
        rank, module = heapq.heappop(heap)
        if prices[module] > left:
            continue
        ranks[module] += 1
        left -= int(prices[module])
        if rank + 1 < most:
            heapq.heappush(heap, (rank + 1, module))
