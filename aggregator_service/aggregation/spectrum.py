"""Leading singular triplets of a product that is given as factors, or as a sketch; all in float64.

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


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """M ~ U diag(values) V: U (out_features, rank), values falling, V (rank, in_features).

    `energy` is ||M||_F^2, all of it; `error_bound` bounds ||M - U diag(values) V||_F in expectation over the
    sketch's randomness, and is exact where there was no sketch.
    """

    left: Floats
    values: Floats
    right: Floats
    energy: float
    error_bound: float


def of_factors(left: Floats, right: Floats, rank: int) -> Spectrum:
    """The leading `rank` triplets of left @ right, or as many as it has."""
    out_features, width = left.shape
    if width < min(out_features, right.shape[1]):
        basis, triangle = np.linalg.qr(right.T)
        found = _of_dense(left @ triangle.T, rank)
        return Spectrum(found.left, found.values, found.right @ basis.T, found.energy, found.error_bound)
    return _of_dense(left @ right, rank)


def _of_dense(matrix: Floats, rank: int) -> Spectrum:
    if matrix.shape[0] < matrix.shape[1]:
        other = _of_dense(matrix.T, rank)
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
    alive = values > NEGLIGIBLE * values[0]
    right = vectors[:, order[alive]].T
    values = values[alive]
    return _signed((matrix @ right.T) / values, values, right, energy)


def _signed(left: Floats, values: Floats, right: Floats, energy: float) -> Spectrum:
    """Each pair's sign such that the largest number of its row of V is positive: the same bytes each time."""
    largest = np.argmax(np.abs(right), axis=1)
    signs = np.where(right[np.arange(len(right)), largest] < 0, -1.0, 1.0)
    rest = max(energy - float(np.sum(values**2)), 0.0)
    return Spectrum(left * signs, values, right * signs[:, None], energy, float(np.sqrt(rest)))


def of_sketch(ranges: Floats, coranges: Floats, psi: Floats, rank: int) -> Spectrum:
    """The leading `rank` triplets of the M whose sketches these are.

    Steps (Tropp et al., arXiv 1609.00048): Q of ranges = M Omega; X from (Psi Q) X = coranges = Psi M;
    the SVD of X, cut to `rank`. With q = range and l = co-range, Theorem 4.3 there bounds the expected
    squared error of Q X by (1 + q / (l - q - 1)) min_r (1 + r / (q - r - 1)) tail_r^2; ||M||_F^2 is
    estimated by ||coranges||^2 / l, whose expectation it is.
    """
    basis, _ = np.linalg.qr(ranges)
    core = np.linalg.lstsq(psi @ basis, coranges, rcond=None)[0]
    found = _of_dense(core, rank)
    wide, tall = ranges.shape[1], coranges.shape[0]
    energy = float(np.sum(coranges**2)) / tall
    tail = max(energy - float(np.sum(found.values**2)), 0.0)
    spread = (1 + wide / (tall - wide - 1)) * (1 + rank / max(wide - rank - 1, 1))
    # Cutting the approximation to the rank adds at most what it is off by, once more (section 6.2 there).
    bound = float(np.sqrt(tail)) * (1 + 2 * float(np.sqrt(spread)))
    return Spectrum(basis @ found.left, found.values, found.right, energy, bound)
