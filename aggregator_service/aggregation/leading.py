"""The leading singular triplets of a product by iteration on a block of vectors; no full decomposition.

M, out_features at least in_features, is given as matrices whose product it is: (L, R), or (M,) itself.

1. Take a fixed random block X of orthonormal columns, half as many again as the triplets that are wanted. The
   singular values of M on it (Ritz values) tell how steeply the spectrum falls behind the wanted rank.
2. Steep, as where all devices moved one adapter a little: X <- orthonormal columns of M^T M X, a few times.
   Else M and G = M^T M are formed, and X filtered by Chebyshev polynomials of G, small on all that lies below
   its last Ritz value and steep above (Zhou, Saad, Tiago, Chelikowsky, "Self-consistent-field calculations
   using Chebyshev-filtered subspace iteration", J. Comput. Phys. 2006), until the check of step 4 would hold.
3. Ritz values s and vectors V of M on X, U = M V / s; the result is U U^T M.
4. Check: e = M^T u - s v is what X misses of v. With eta bounding M outside X, v is off by the angle
   s |e| / (s^2 - eta^2) at most, u by eta / s of that, and the product by

       sqrt(sum_i (eta s_i |e_i| / (s_i^2 - eta^2))^2)

   eta^2 is taken halfway between the squares of the last wanted Ritz value and of the last of all: as soon
   as X is near, that lies above what is left outside. Where this passes `TOLERANCE` of the product's norm, X
   goes through M^T M once more; where that does not help, there is no result: the caller decomposes in full.

Steps 1 and 2 are in float32. So are 3 and 4, if the rounding of the sum, sqrt(S sum_s |l_s|^2 |r_s|^2) times
that of float32, is below `ROUNDED` of the norm of the product; else, or if their check fails, in float64.

Everything is fixed, the random block too: equal products give equal bytes. A direction that is orthogonal to
the block to within rounding would be missed. Chance makes none; who builds one hides an update of his own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.stacks import Floats

Block: TypeAlias = NDArray[Any]  # float32 or float64
Factors = Sequence[Block]
Result = tuple[Block, Block]

# Of the product's norm: what the check allows for the iteration, and float32 for rounding; together 1e-5.
TOLERANCE: Final = 8e-6
ROUNDED: Final = 2e-6
# The block's width over the rank, and the narrowest matrix over the block: below it nothing is won.
WIDTH: Final = 1.5
NARROWEST: Final = 4
# Products with M^T M that are cheaper than to form it, and what they are to leave of the unwanted.
MOST_PRODUCTS: Final = 4
LEFT: Final = 1e-5
# The highest degree of a filter, and how far it may draw wanted directions apart: float32 has seven digits,
# of which those that are still in error are no use.
DEGREE: Final = 12
LEAST_SPREAD: Final = 1e4
MOST_SPREAD: Final = 1e8
LARGEST: Final = 1e30
# Products with G beyond which, and an error below which if it falls no more, X is left to the check.
MOST_FILTERED: Final = 60
ROUGH: Final = 1e-3
ROUNDS: Final = 3
# Squares of Ritz values below this share of the first are float32's rounding.
STEEPEST: Final = 1e-10
# A block whose Cholesky factor has a smaller diagonal, over its largest, is made orthonormal by reflections.
DEPENDENT: Final = 1e-4
RANDOM_SEED: Final = 2006


def pays(narrowest: int, rank: int) -> bool:
    """Whether the iteration beats a full decomposition; `narrowest` is the smallest side of a factor."""
    return NARROWEST * int(WIDTH * rank) <= narrowest


def leading(single: Factors, double: Callable[[], Factors], rank: int, rounding: float) -> Result | None:
    """U (out_features, rank), orthonormal columns, and U^T M (rank, in_features); None if nothing comes near.

    Args:
        single: matrices whose product M is, in float32; of a size whose squares are no bother to it.
        double: gives them in float64, and may take its time.
        rounding: the norm of what float32 rounds off M in adding it up.
    """
    with np.errstate(all="ignore"):  # what passes float32 shows in the Ritz values
        result, block = _approached(single, rank, rounding)
    return result if result is not None or block is None else _refined(double(), block, rank)


def _approached(factors: Factors, rank: int, rounding: float) -> tuple[Result | None, Block | None]:
    """All in float32: a result, if that is enough for it, and X, if it comes to anything."""
    block = _random(factors[-1].shape[1], int(WIDTH * rank))
    found = _Ritz.of(factors, block)
    squares = found.squares
    if not squares[rank - 1] > STEEPEST * squares[0] > 0:
        return None, None
    products = _products(float(squares[-1] / squares[rank - 1]))
    if products > MOST_PRODUCTS:
        factors = (_times(factors[:-1], factors[-1]),)
        block = _filtered(factors[0], block, rank)
        found = _Ritz.of(factors, block)
    else:
        for _ in range(products):
            block = found.through(factors)
            found = _Ritz.of(factors, block)
    if rounding > ROUNDED * found.norm(rank):
        return None, block
    for _ in range(2):  # once more, if the check wants it
        result = found.checked(factors, rank)
        if result is not None:
            return result, block
        block = found.through(factors)
        found = _Ritz.of(factors, block)
    return None, block


def _refined(factors: Factors, block: Block, rank: int) -> Result | None:
    """Steps 3 and 4 in float64."""
    for _ in range(ROUNDS):
        found = _Ritz.of(factors, _orthonormal(block.astype(np.float64)))
        result = found.checked(factors, rank)
        if result is not None:
            return result
        block = found.through(factors)
    return None


def _products(ratio: float) -> int:
    """How often X is to go through M^T M; half a time more is in U = M V."""
    if not ratio < 1:
        return MOST_PRODUCTS + 1
    return max(int(np.ceil(np.log(LEFT) / np.log(max(ratio, STEEPEST)) - 0.5)), 1)


@dataclass(frozen=True, slots=True)
class _Ritz:
    """M on a block: the squares of its singular values there, U and V, the largest first."""

    squares: Floats
    left: Block
    right: Block

    @classmethod
    def of(cls, factors: Factors, block: Block) -> _Ritz:
        image = _times(factors, block)
        gram = _gram(image)
        if not np.isfinite(gram).all():
            return cls(np.zeros(len(gram)), image, block)
        values, turn = np.linalg.eigh(gram)
        squares, turn = np.maximum(values[::-1], 0.0), turn[:, ::-1]
        scale = 1 / np.sqrt(np.maximum(squares, STEEPEST * squares[0]))
        return cls(squares, image @ (turn * scale).astype(image.dtype), block @ turn.astype(image.dtype))

    def norm(self, rank: int) -> float:
        """Of the product that the leading triplets make."""
        return float(np.sqrt(np.sum(self.squares[:rank])))

    def through(self, factors: Factors) -> Block:
        """Orthonormal columns of M^T M times the block."""
        return _orthonormal(_back(factors, self.left))

    def checked(self, factors: Factors, rank: int) -> Result | None:
        """U and U^T M, if they are near enough."""
        squares, left = self.squares, self.left[:, :rank]
        images = _back(factors, left)
        missed = images - self.right[:, :rank] * np.sqrt(squares[:rank]).astype(left.dtype)
        near = _error(squares[:rank] * np.sum(missed**2, axis=0), squares, rank) <= TOLERANCE
        return (left, images.T) if near else None


def _error(missed: Floats, squares: Floats, rank: int) -> float:
    """Step 4's bound over the norm of the product; `missed` are s_i^2 |e_i|^2."""
    wanted, outside = squares[:rank], (squares[rank - 1] + squares[-1]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.sum(outside * missed / (wanted - outside) ** 2) / np.sum(wanted)))


def _filtered(matrix: Block, block: Block, rank: int) -> Block:
    """X after as many filters as bring it near, by Ritz values and residuals of G = M^T M."""
    gram, products, last = matrix.T @ matrix, 0, np.inf
    while True:
        image = gram @ block
        quotient = (block.T @ image).astype(np.float64)
        if not np.isfinite(quotient).all():
            return block
        values, turn = np.linalg.eigh(quotient)
        squares, turn = np.maximum(values[::-1], 0.0), turn[:, ::-1].astype(block.dtype)
        block, image = block @ turn, image @ turn
        missed = (image - block * squares.astype(block.dtype))[:, :rank]  # s_i e_i
        error = _error(np.sum(missed**2, axis=0), squares, rank)
        stalled = ROUGH > error >= last  # at float32's rounding of G
        if not error > TOLERANCE / 2 or stalled or products > MOST_FILTERED:
            return block
        last = error
        half = max(float(squares[-1]), STEEPEST * float(squares[0])) / 2
        degree = _degree(squares / half - 1, rank, error)
        block = _orthonormal(_chebyshev(gram, block, image, half, degree))
        products += degree


def _degree(places: Floats, rank: int, error: float) -> int:
    """The degree that brings X near, or the highest that does no harm.

    Args:
        places: of the Ritz values, on the line on which the polynomial is small from -1 to 1.
    """
    highest, wanted = (max(float(np.arccosh(max(places[at], 1.0))), 1e-3) for at in (0, rank - 1))
    most = np.log(min(LEAST_SPREAD / min(error, 1.0), MOST_SPREAD)) / max(highest - wanted, 1e-3)
    degree = min(DEGREE, np.ceil(np.log(4 * error / TOLERANCE) / wanted), np.log(LARGEST) / highest, most)
    return max(int(degree), 1)


def _chebyshev(gram: Block, block: Block, image: Block, half: float, degree: int) -> Block:
    """T(G / half - 1) X for the Chebyshev polynomial of this degree; `image` is G X."""
    before, now = block, image * (1 / half) - block
    for _ in range(1, degree):
        after = gram @ now
        after *= 2 / half
        after -= 2 * now
        after -= before
        before, now = now, after
    return now


def _times(factors: Factors, block: Block) -> Block:
    """M X."""
    for factor in reversed(factors):
        block = factor @ block
    return block


def _back(factors: Factors, block: Block) -> Block:
    """M^T Y."""
    for factor in factors:
        block = factor.T @ block
    return block


def _orthonormal(block: Block) -> Block:
    """Orthonormal columns of the same span."""
    gram = _gram(block)
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


def _gram(block: Block) -> Floats:
    own = block.astype(np.float64, copy=False)
    return own.T @ own


@lru_cache(maxsize=16)
def _random(features: int, width: int) -> Block:
    normal = np.random.default_rng(RANDOM_SEED).standard_normal((features, width))
    block = np.linalg.qr(normal)[0].astype(np.float32)
    block.flags.writeable = False
    return block
