"""Leading singular triplets of a product that is given as factors; in float64 but for what is then refined.

Of M = L R, with L (out_features, S) and R (S, in_features), by iteration on a block of vectors where that is
faster (`leading.py`). Else the smallest of three Gram matrices is taken:

S < both sides   thin QR of R^T = Q T; M = (L T^T) Q^T, and the S x S Gram matrix of L T^T
else             M itself, and the Gram matrix of its narrower side

and of that only the eigenvectors that are wanted (LAPACK's MRRR). Squaring halves the digits: values below
1e-8 of the largest are lost, which is below what float32 factors hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.linalg import eigh

from aggregator_service.aggregation.leading import leading, pays
from aggregator_service.aggregation.stacks import Array, Floats
from hetlora.errors import NonFiniteValues

# Below this share of the largest singular value, what is left is rounding.
NEGLIGIBLE: Final = 1e-7
# So it is below this share of what was added up, where that cancels.
CANCELLED: Final = 1e-13
# Float32's rounding, and squares that it holds.
FLOAT32: Final = 2.0**-24
SMALLEST: Final = 1e-24
LARGEST: Final = 1e30


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """M ~ U diag(values) V: U (out_features, rank), values falling, V (rank, in_features).

    `energy` is ||M||_F^2, all of it, and `error` is ||M - U diag(values) V||_F, as the root of a difference
    of squares: below 1e-8 of the norm it may be rounding. Of a sketch both are estimates (`sketch.py`).
    """

    left: Floats
    values: Floats
    right: Floats
    energy: float
    error: float


def refuse_non_finite(size: float) -> float:
    """The norm of what was summed, unless NaN or infinity shows in it.

    Raises:
        NonFiniteValues: they do.
    """
    if not np.isfinite(size):
        raise NonFiniteValues("a product of the round holds values that are not finite", got=size)
    return size


def of_factors(left: Array, scales: Floats, right: Array, rank: int, energies: bool = True) -> Spectrum:
    """The leading `rank` triplets of left diag(scales) right, or as many as it has.

    Args:
        left: (out_features, S), float32 or float64.
        scales: (S,).
        right: (S, in_features), of the dtype of left.
        energies: whether `energy` and `error` are wanted, which takes M itself; else they may be NaN.

    Raises:
        NonFiniteValues: NaN or infinity in any of these.
    """
    (high, width), wide = left.shape, right.shape[1]
    if high < wide:
        return _transposed(of_factors(right.T, scales, left.T, rank, energies))
    # What rounding is a share of.
    added = refuse_non_finite(float(np.sqrt(width * np.sum(scales**2 * _squares(left.T) * _squares(right)))))
    if added > 0 and pays(min(width, wide), rank):
        return _iterated(left, scales, right, rank, energies, added)
    weighted, right = left * scales, right.astype(np.float64, copy=False)
    if width >= wide:
        return of_dense(weighted @ right, rank, CANCELLED * added)
    basis, triangle = np.linalg.qr(right.T)
    core = of_dense(weighted @ triangle.T, rank, CANCELLED * added)
    return Spectrum(core.left, core.values, core.right @ basis.T, core.energy, core.error)


def _iterated(left: Array, scales: Floats, right: Array, rank: int, energies: bool, added: float) -> Spectrum:
    """Of M over what was added, so that nothing passes float32 and its squares do not either."""
    scales = scales / added

    def double() -> tuple[Floats, Floats]:
        return left * scales, right.astype(np.float64, copy=False)

    matrix = np.matmul(*double()) if energies else None
    if matrix is not None:
        found = leading((matrix.astype(np.float32),), lambda: (matrix,), rank, np.inf)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # shows in the Ritz values
            weighted = (left * scales.astype(left.dtype)).astype(np.float32, copy=False)
        found = leading((weighted, right.astype(np.float32, copy=False)), double, rank, FLOAT32)
    if found is None:
        result = of_dense(np.matmul(*double()) if matrix is None else matrix, rank, CANCELLED)
    else:
        result = _of_images(*found, np.nan if matrix is None else float(np.sum(matrix**2)), CANCELLED)
    energy, error = result.energy * added**2, result.error * added
    return Spectrum(result.left, result.values * added, result.right, energy, error)


def _squares(rows: Array) -> Floats:
    """||row||^2 of each row, in float32 where that neither overflows nor loses digits to denormal numbers."""
    with np.errstate(over="ignore", under="ignore"):
        squares: Floats = np.einsum("si,si->s", rows, rows).astype(np.float64)
    if squares.size and squares.min() > SMALLEST and squares.max() < LARGEST:
        return squares
    exact: Floats = np.einsum("si,si->s", rows, rows, dtype=np.float64)
    return exact


def _of_images(left: Array, images: Array, energy: float, floor: float) -> Spectrum:
    """Of orthonormal U and of U^T M, whose rows are orthogonal."""
    U: Floats = left.astype(np.float64, copy=False)
    rows: Floats = images.astype(np.float64, copy=False)
    values = np.linalg.norm(rows, axis=1)
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > max(NEGLIGIBLE * values[order[0]], floor)]
    return _signed(U[:, order], values[order], rows[order] / values[order, None], energy)


def _transposed(other: Spectrum) -> Spectrum:
    return _signed(other.right.T, other.values, other.left.T, other.energy)


def of_dense(matrix: Floats, rank: int, floor: float = 0.0) -> Spectrum:
    """The leading `rank` triplets of a matrix, or as many as it has above `floor`.

    Raises:
        NonFiniteValues: NaN or infinity in it.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return _transposed(of_dense(matrix.T, rank, floor))
    gram = matrix.T @ matrix
    size = len(gram)
    kept = min(rank, size)
    energy = refuse_non_finite(float(np.trace(gram)))
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
    rest = np.maximum(energy - float(np.sum(values**2)), 0.0)  # of NaN, NaN
    return Spectrum(left * signs, values, right * signs[:, None], energy, float(np.sqrt(rest)))
