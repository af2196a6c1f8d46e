"""The geometric median of changes, as weights (Pillutla, Kakade, Harchaoui, arXiv 1912.13445, RFA).

    z = argmin_z sum_k ||D_k - z||,   and at z:   z = sum_k w_k D_k,   w_k ~ 1 / ||D_k - z||

by Weiszfeld's iteration, smoothed as there: w_k ~ 1 / max(nu, ||D_k - z||). An update however far away pulls
with no more than the force of one.

1. z is sum_k w_k D_k throughout, so that ||D_k - z||^2 = G_kk - 2 (G w)_k + w^T G w.
2. From equal weights, repeat until no weight moves by more than `TOLERANCE` of itself, at most
   `ITERATIONS` times. nu is `SMOOTHING` times the smallest norm that is not zero: no scale is of account, and
   no outlier makes it larger.
3. The weights are the updates' trust. A rule that weighs all alike then takes the geometric median of what
   it averages: of the products, for rules over products.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from aggregator_service.aggregation.stacks import Floats

ITERATIONS: Final = 1000
TOLERANCE: Final = 1e-10
SMOOTHING: Final = 1e-6


def geometric_median(gram: Floats) -> Floats:
    """The weight of each update; the largest is 1, and all are where nothing tells updates apart."""
    squares = np.diagonal(gram)
    weights = np.ones(len(gram))
    if not squares.any():
        return weights
    smallest = SMOOTHING * float(np.sqrt(squares[squares > 0].min()))
    for _ in range(ITERATIONS):
        share = weights / weights.sum()
        towards = gram @ share
        distances = np.sqrt(np.maximum(squares - 2 * towards + share @ towards, 0.0))
        distances = np.maximum(distances, smallest)
        before, weights = weights, distances.min() / distances
        if (np.abs(weights - before) <= TOLERANCE * weights).all():
            break
    return weights
