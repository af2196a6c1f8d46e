"""What rounds with noise tell together.

Each round is a Gaussian mechanism of sensitivity C and deviation sigma C. Some of them, each chosen knowing
what came of those before, tell as much as one of 1 / sigma^2 = sum_i 1 / sigma_i^2 (Dong, Roth and Su,
arXiv 1905.02383, section 3.3), whose epsilon at a delta is exact (Balle and Wang, arXiv 1805.06530, theorem
8). No device is drawn at random, so nothing is taken off for sampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from hetlora.messages.privacy import PrivacySpent


def precision_of(noise_multipliers: Iterable[float]) -> float:
    """sum_i 1 / sigma_i^2 of rounds, which adds up over them."""
    return math.fsum(sigma**-2 for sigma in noise_multipliers)


def spent_at(precision: float, delta: float) -> PrivacySpent:
    """The epsilon at this delta of rounds whose precisions add up to `precision`."""
    if precision == 0:
        return PrivacySpent(epsilon=0.0, delta=delta)
    # Imported here: it takes most of a second, and services without privacy have no use for it.
    import dp_accounting

    return PrivacySpent(
        epsilon=float(dp_accounting.get_epsilon_gaussian(precision**-0.5, delta)), delta=delta
    )
