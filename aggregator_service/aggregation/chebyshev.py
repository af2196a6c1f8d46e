"""A block of vectors drawn towards the leading eigenvectors of a Gram matrix by Chebyshev polynomials."""

from __future__ import annotations

from typing import Final

import numpy as np

from aggregator_service.aggregation.blocks import STEEPEST, error_bound, falling, orthonormal
from aggregator_service.aggregation.stacks import Array, Floats

# The highest degree of a filter, and how far it may draw wanted directions apart: float32 has seven digits,
# of which those that are still in error are no use.
DEGREE: Final = 12
LEAST_SPREAD: Final = 1e4
MOST_SPREAD: Final = 1e8
# What float32 holds of a polynomial's value.
MOST_GROWTH: Final = 1e30
# Products with G beyond which, and an error below which if it falls no more, X is left as it is.
MOST_PRODUCTS: Final = 60
ROUGH: Final = 1e-3


def filtered(matrix: Array, block: Array, rank: int, tolerance: float) -> Array:
    """X after as many filters as bring its leading `rank` Ritz vectors within `tolerance`, if that can be.

    Args:
        matrix: M; the filters are polynomials of G = M^T M.
        block: X, orthonormal columns, more than `rank`.
    """
    gram, products, last = matrix.T @ matrix, 0, np.inf
    while True:
        image = gram @ block
        quotient = (block.T @ image).astype(np.float64)
        if not np.isfinite(quotient).all():
            return block
        squares, turn = falling(quotient)
        block, image = block @ turn.astype(block.dtype), image @ turn.astype(block.dtype)
        missed = (image - block * squares.astype(block.dtype))[:, :rank]  # s_i e_i
        error = error_bound(np.sum(missed**2, axis=0), squares, rank)
        stalled = ROUGH > error >= last  # at float32's rounding of G
        if not error > tolerance or stalled or products > MOST_PRODUCTS:
            return block
        last = error
        half = max(float(squares[-1]), STEEPEST * float(squares[0])) / 2
        degree = _degree(squares / half - 1, rank, error, error / tolerance)
        block = orthonormal(_chebyshev(gram, block, image, half, degree))
        products += degree


def _degree(places: Floats, rank: int, error: float, above: float) -> int:
    """The degree that brings X near, or the highest that does no harm.

    Args:
        places: of the Ritz values, on the line on which the polynomial is small from -1 to 1.
        above: the error over the one that is wanted.
    """
    highest, wanted = (max(float(np.arccosh(max(places[at], 1.0))), 1e-3) for at in (0, rank - 1))
    most = np.log(min(LEAST_SPREAD / min(error, 1.0), MOST_SPREAD)) / max(highest - wanted, 1e-3)
    degree = min(DEGREE, np.ceil(np.log(2 * above) / wanted), np.log(MOST_GROWTH) / highest, most)
    return max(int(degree), 1)


def _chebyshev(gram: Array, block: Array, image: Array, half: float, degree: int) -> Array:
    """T(G / half - 1) X for the Chebyshev polynomial of this degree; `image` is G X."""
    before, now = block, image * (1 / half) - block
    for _ in range(1, degree):
        after = gram @ now
        after *= 2 / half
        after -= 2 * now
        after -= before
        before, now = now, after
    return now
