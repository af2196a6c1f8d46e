"""raFLoRA (Wu et al., arXiv 2602.13486, section 5): the product is averaged by bands of ranks, and cut.

    M = sum_j sum_{k owns j} (n_k / N_j) B_k[:, h_{j-1}:h_j] A_k[h_{j-1}:h_j, :],   N_j = sum_{k owns j} n_k

with levels 0 = h_0 < h_1 < ... < h_J, the run's rank: as given in methods.md (B.2); the paper's numbered
equations were not at hand.

1. Split each update into bands of ranks between levels.
2. Average each band's product over those who own it: whoever has fewer ranks is no longer an average's zero.
3. Cut the singular value decomposition of the sum to the run's rank, and hand out prefixes, as FlexLoRA.

Readings. In the paper every device's rank is a level, and a device owns the bands up to it. Here ranks are
free: a device owns a band if it holds any rank of it, and the ranks of the band that it lacks count as zeros.
So a single level, the run's rank, is FlexLoRA, and levels at every rank are RBLA of products; by default
levels are the powers of two up to the run's rank. They belong to the settings, never to a round's cohort. A
band that nobody owned stays what it was, that of the global factors before; the paper leaves this open.

As the mean is by band, it depends on which rank is which: not on B A alone.

A cohort beyond a stack (`products.py`) takes one sketch for each band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np

from aggregator_service.aggregation.gauge import balanced
from aggregator_service.aggregation.products import ProductSum, merge_products, zero_products
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.stacks import Floats, StackedAdapter, groups_of, zeros
from hetlora.messages.rules import RaFloraRule


@dataclass(slots=True)
class RaFloraPartial:
    """The weighted sum of each band's products, and N_j of each module, group by group; all weight."""

    bands: list[ProductSum]
    held: list[list[Floats]]
    weight: float = 0.0


class RaFlora(RoundRule[RaFloraRule]):
    """The mean product by bands of ranks, redistributed by SVD."""

    free_gauge = True
    same_coordinates = False

    @property
    def bands(self) -> list[tuple[int, int]]:
        """From which rank to which each band goes."""
        run_rank = self.state.rank
        levels = self.settings.levels or [2**power for power in range(run_rank.bit_length())]
        return [*pairwise(sorted({0, run_rank, *(level for level in levels if level < run_rank)}))]

    def init(self) -> RaFloraPartial:
        spec = self.state.adapter.spec
        zeros = [zero_products(spec, self.state.rank, self.rank_total) for _ in self.bands]
        return RaFloraPartial(zeros, [[np.zeros(len(group)) for group in groups_of(spec)] for _ in zeros])

    def accumulate(self, partial: RaFloraPartial, leaf: Sequence[Update]) -> list[float]:
        weights = self.weights_of(leaf)
        for (first, last), products, held in zip(self.bands, partial.bands, partial.held, strict=True):
            owners = [
                (update, n) for update, n in zip(leaf, weights, strict=True) if update.adapter.rank > first
            ]
            for update, n in owners:
                for own, ranks in zip(held, update.adapter.ranks, strict=True):
                    own += n * (ranks > first)
            if owners:
                products.add([_band(own.adapter, first, last) for own, _ in owners], [n for _, n in owners])
        partial.weight += sum(weights)
        return weights

    def merge(self, left: RaFloraPartial, right: RaFloraPartial) -> RaFloraPartial:
        bands = [merge_products(*pair) for pair in zip(left.bands, right.bands, strict=True)]
        held = [
            [one + other for one, other in zip(*pair, strict=True)]
            for pair in zip(left.held, right.held, strict=True)
        ]
        return RaFloraPartial(bands, held, left.weight + right.weight)

    def weight(self, total: RaFloraPartial, raw: float) -> float:
        """The share of all examples: by band an update's weight is that or more."""
        return raw / total.weight

    def finish(self, total: RaFloraPartial) -> GlobalState:
        before, means = self.state.adapter, []
        for (first, last), products, held in zip(self.bands, total.bands, total.held, strict=True):
            mean = products.scaled([1 / np.where(own > 0, own, 1.0) for own in held])
            nobodys = [(own == 0).astype(np.float64) for own in held]
            if any(own.any() for own in nobodys):
                mean.add([_band(before, first, last)], [nobodys])
            means.append(mean)
        spectra = reduce(merge_products, means).spectra(self.state.rank, energies=False)
        return self.next_state(balanced(before.spec, spectra, self.state.rank))


def _band(adapter: StackedAdapter, first: int, last: int) -> StackedAdapter:
    """The ranks from `first` to before `last`, as far as the adapter has them; a module may have none."""
    result = zeros(adapter.spec, [max(min(stack.rank, last) - first, 0) for stack in adapter], np.float32)
    for into, stack in zip(result, adapter, strict=True):
        into.lora_A[:] = stack.lora_A[:, first:last]
        into.lora_B[:] = stack.lora_B[:, :, first:last]
    return result
