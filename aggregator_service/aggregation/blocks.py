"""Blocks of a few columns, what is done with them, and how near they are to singular vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from aggregator_service.aggregation.stacks import Array, Floats

Factors = Sequence[Array]  # matrices whose product is M

# Squares of Ritz values below this share of the first are float32's rounding.
STEEPEST: Final = 1e-10
# A block whose Cholesky factor has a smaller diagonal, over its largest, is made orthonormal by reflections.
DEPENDENT: Final = 1e-4


def times(factors: Factors, block: Array) -> Array:
    """M X."""
    for factor in reversed(factors):
        block = factor @ block
    return block


def back(factors: Factors, block: Array) -> Array:
    """M^T Y."""
    for factor in factors:
        block = factor.T @ block
    return block


def orthonormal(block: Array) -> Array:
    """Orthonormal columns of the same span."""
    gram = gram_of(block)
    sizes = np.sqrt(gram.diagonal())
    sizes = np.where(sizes > 0, sizes, 1.0)
    block = block / sizes.astype(block.dtype)
    try:
        triangle = np.linalg.cholesky(gram / np.outer(sizes, sizes))
    except np.linalg.LinAlgError:
        triangle = np.zeros((1, 1))
    pivots = triangle.diagonal()
    if pivots.min() > DEPENDENT * pivots.max():
        return np.asarray(block @ np.linalg.inv(triangle).T.astype(block.dtype))
    return np.asarray(np.linalg.qr(block)[0])


def gram_of(block: Array) -> Floats:
    """X^T X, in float64."""
    own = block.astype(np.float64, copy=False)
    return own.T @ own


def falling(gram: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues of a Gram matrix, none below zero, the largest first; and their vectors as columns."""
    values, vectors = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def error_bound(missed: Floats, squares: Floats, rank: int) -> float:
    """How far `rank` triplets are from the leading ones, over the norm of their product, at most.

    As `leading.py` has it in step 4; `missed` are s_i^2 |e_i|^2, `squares` those of all Ritz values.
    """
    wanted, outside = squares[:rank], (squares[rank - 1] + squares[-1]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.sum(outside * missed / (wanted - outside) ** 2) / np.sum(wanted)))
