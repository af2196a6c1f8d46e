"""Leading singular triplets of a product that is given as factors; all in float64.

Of M = L R, with L (out_features, S) and R (S, in_features), the smallest of three Gram matrices is taken:

S < both sides   thin QR of R^T = Q T; M = (L T^T) Q^T, and the S x S Gram matrix of L T^T
else             M itself, and the Gram matrix of its narrower side

and of that only the eigenvectors that are wanted (LAPACK's MRRR). Squaring halves the digits: values below
1e-8 of the largest are lost, which is below what float32 factors hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Floats = NDArray[np.float64]

# Below this share of the largest singular value, what is left is rounding.
NEGLIGIBLE: Final = 1e-7
# So it is below this share of ||L||_F ||R||_F, where terms of the sum cancel each other.
CANCELLED: Final = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """M ~ U diag(values) V: U (out_features, rank), values falling, V (rank, in_features).

    `energy` is ||M||_F^2, all of it, and `error` is ||M - U diag(values) V||_F; of a sketch both are
    estimates (`sketch.py`).
    """

    left: Floats
    values: Floats
    right: Floats
    energy: float
    error: float


def of_factors(left: Floats, right: Floats, rank: int) -> Spectrum:
    """The leading `rank` triplets of left @ right, or as many as it has."""
    out_features, width = left.shape
    floor = CANCELLED * float(np.linalg.norm(left) * np.linalg.norm(right))
    if width < min(out_features, right.shape[1]):
        basis, triangle = np.linalg.qr(right.T)
        found = of_dense(left @ triangle.T, rank, floor)
        return Spectrum(found.left, found.values, found.right @ basis.T, found.energy, found.error)
    return of_dense(left @ right, rank, floor)


def of_dense(matrix: Floats, rank: int, floor: float = 0.0) -> Spectrum:
    """The leading `rank` triplets of a matrix, or as many as it has above `floor`."""
    if matrix.shape[0] < matrix.shape[1]:
        other = of_dense(matrix.T, rank, floor)
        return _signed(other.right.T, other.values, other.left.T, other.energy)
    gram = matrix.T @ matrix
    size = len(gram)
    kept = min(rank, size)
    energy = float(np.trace(gram))
    if kept == 0 or energy == 0.0:
        return Spectrum(np.zeros((len(matrix), 0)), np.zeros(0), np.zeros((0, size)), energy, 0.0)
    squares, vectors = eigh(gram, subset_by_index=[size - kept, size - 1], driver="evr", check_finite=False)
    order = np.argsort(-squares, kind="stable")
    values = np.sqrt(np.maximum(squares[order], 0.0))
    alive = values > max(NEGLIGIBLE * values[0], floor)
    right = vectors[:, order[alive]].T
    values = values[alive]
    return _signed((matrix @ right.T) / values, values, right, energy)


def _signed(left: Floats, values: Floats, right: Floats, energy: float) -> Spectrum:
    """Each pair's sign such that the largest number of its row of V is positive: the same bytes each time."""
    largest = np.argmax(np.abs(right), axis=1)
    signs = np.where(right[np.arange(len(right)), largest] < 0, -1.0, 1.0)
    rest = max(energy - float(np.sum(values**2)), 0.0)
    return Spectrum(left * signs, values, right * signs[:, None], energy, float(np.sqrt(rest)))
