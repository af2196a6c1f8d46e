"""What is no longer trained: products folded into the frozen adapter, which grows no wider than it may."""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.gauge import trimmed
from aggregator_service.aggregation.products import ProductSum
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.adapter import AdapterSpec


def fold_sum(
    spec: AdapterSpec, products: ProductSum, rank: int, scale: float
) -> tuple[StackedAdapter | None, float]:
    """Scale times a sum of products at rank `rank` or below, None if that is zero; and what was cut off.

    The best approximation, each module at as many ranks as the sum has, up to `rank`: those that are not
    there take no place. What is cut off, of which the norm is told, is lost for good.
    """
    spectra = [*products.spectra(rank)]
    lost = scale * float(np.sqrt(sum(one.error**2 for group in spectra for one in group)))
    if not any(one.values.size for group in spectra for one in group):
        return None, lost
    return trimmed(spec, spectra, scale), lost
