"""FLoRIST (Ramesh and Dass, arXiv 2506.09199): one adapter for all, at the rank that its energy asks for.

    M = sum_k p_k B_k A_k = U S V^T,   p = the smallest with sum_{i <= p} S_i^2 >= tau sum_i S_i^2

module by module, as given in methods.md (B.2); the paper's numbered equations were not at hand.

1. Stack the updates, lora_B times p_k, and take the singular values of the product in factor space
   (`spectrum.py`; the paper takes an SVD of each stack and of the small core between them).
2. Keep in each module the fewest triplets that hold the share tau of the energy (`energy`), so that modules
   have ranks of their own.
3. Everybody is sent the same; a device whose rank is lower, what fits it.

The split of S between the factors is balanced here (`gauge.py`); the paper's is not known to us.

Readings and limits. No module has more than the run's rank, as devices train the adapter that they are sent.
Where tau asks for more, the module is cut as FlexLoRA cuts it, the best of its rank, and less than tau is
kept: the share that all modules together keep is told as `energy_kept`, and how many hit the limit as
`modules_at_limit`. Where all devices moved one adapter a little the limit costs nothing; of updates with
little in common the threshold asks for many times the run's rank, and what there is at the limit is less.

A module whose product is zero keeps one rank, refilled, or it could never be trained. The threshold is taken
anew each round, also of what it left the round before: with tau below 1 the adapter shrinks while nobody
learns, until no module has a value left that it can do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aggregator_service.aggregation.cutting import cut
from aggregator_service.aggregation.gauge import balanced
from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules.product_rule import ProductPartial, ProductRule
from aggregator_service.aggregation.spectrum import Spectrum
from hetlora.messages.rules import FloristRule

ROUNDING = 1e-12  # of the energy, which is a sum of as many squares as M has entries


class Florist(ProductRule[FloristRule]):
    """The mean product, each module at the smallest rank that keeps its share of the energy."""

    def finish(self, total: ProductPartial) -> GlobalState:
        spec, run_rank, share = self.state.adapter.spec, self.state.rank, self.settings.energy
        spectra = [*total.products.spectra(run_rank)]
        ranks = [np.array([smallest_rank(one, share) for one in group], np.intp) for group in spectra]
        adapter = cut(
            balanced(spec, spectra, run_rank, 1 / total.weight), [np.maximum(own, 1) for own in ranks]
        )
        return replace(self.next_state(adapter), figures=_figures(spectra, ranks, share))


def smallest_rank(spectrum: Spectrum, share: float) -> int:
    """The fewest leading triplets that hold a share of the energy, or all that there are."""
    kept = np.cumsum(spectrum.values**2)
    return min(int(np.sum(kept < (share - ROUNDING) * spectrum.energy)) + 1, len(kept))


def _figures(
    spectra: Sequence[Sequence[Spectrum]], ranks: Sequence[np.ndarray], share: float
) -> dict[str, float]:
    energy, kept, limited = 0.0, 0.0, 0
    for group, own in zip(spectra, ranks, strict=True):
        for one, rank in zip(group, own, strict=True):
            held = float(np.sum(one.values[:rank] ** 2))
            energy, kept = energy + one.energy, kept + held
            limited += held < (share - ROUNDING) * one.energy
    return {"energy_kept": kept / energy if energy else 1.0, "modules_at_limit": float(limited)}
