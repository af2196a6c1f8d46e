"""What is no longer trained: products folded into the frozen adapter, which grows no wider than it may."""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.gauge import trimmed
from aggregator_service.aggregation.products import ProductStack, ProductSum
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.adapter import AdapterSpec


def fold(frozen: StackedAdapter | None, adapter: StackedAdapter, rank: int) -> StackedAdapter:
    """The best approximation of the sum of both products, each module at rank `rank` or below; float32.

    Each module has as many ranks as the sum has, up to `rank`: those that are not there take no place. Folded
    again and again, what a cut loses is lost for good.
    """
    both = ProductStack()
    both.add([adapter] if frozen is None else [frozen, adapter], [1.0] * (1 if frozen is None else 2))
    return trimmed(adapter.spec, both.spectra(rank, energies=False))


def fold_sum(
    spec: AdapterSpec, products: ProductSum, rank: int, scale: float
) -> tuple[StackedAdapter | None, float]:
    """The same of scale times a sum of products, None if that is zero; and the norm of what was cut off."""
    spectra = [*products.spectra(rank)]
    lost = scale * float(np.sqrt(sum(one.error**2 for group in spectra for one in group)))
    if not any(one.values.size for group in spectra for one in group):
        return None, lost
    return trimmed(spec, spectra, scale), lost
