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
   goes through M^T M once more, in float64 twice; where that does not help, there is no result, and the
   caller decomposes in full.

Steps 1 and 2 are in float32. So are 3 and 4, if the rounding of the sum, sqrt(S sum_s |l_s|^2 |r_s|^2) times
that of float32, is below `ROUNDED` of the norm of the product; else, or if their check fails, in float64.

Everything is fixed, the random block too: equal products give equal bytes. A direction that is orthogonal to
the block to within rounding would be missed. Chance makes none; who builds one hides an update of his own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from aggregator_service.aggregation.blocks import (
    STEEPEST,
    Factors,
    back,
    error_bound,
    falling,
    gram_of,
    orthonormal,
    times,
)
from aggregator_service.aggregation.chebyshev import filtered
from aggregator_service.aggregation.stacks import Array, Floats

Result = tuple[Array, Array]

# Of the product's norm: what the check allows for the iteration, and float32 for rounding; together 1e-5.
TOLERANCE: Final = 8e-6
ROUNDED: Final = 2e-6
# The block's width over the rank, and the narrowest matrix over the block: below it nothing is won.
WIDTH: Final = 1.5
NARROWEST: Final = 4
# Products with M^T M that are cheaper than to form it, and what they are to leave of the unwanted.
MOST_PASSES: Final = 4
REMAINING: Final = 1e-5
# How often float64 may go through M^T M again before the check decides.
AGAIN: Final = 2
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
    if result is not None or block is None:
        return result
    exact = double()
    return _settled(_Ritz.of(exact, orthonormal(block.astype(np.float64))), exact, rank, AGAIN)[0]


def _approached(factors: Factors, rank: int, rounding: float) -> tuple[Result | None, Array | None]:
    """All in float32: a result, if that is enough for it, and X, if it comes to anything."""
    block = _random(factors[-1].shape[1], int(WIDTH * rank))
    found = _Ritz.of(factors, block)
    squares = found.squares
    if not squares[rank - 1] > STEEPEST * squares[0] > 0:
        return None, None
    passes = _passes(float(squares[-1] / squares[rank - 1]))
    if passes > MOST_PASSES:
        factors = (times(factors[:-1], factors[-1]),)
        found = _Ritz.of(factors, filtered(factors[0], block, rank, TOLERANCE / 2))
    else:
        for _ in range(passes):
            found = _Ritz.of(factors, found.through(factors))
    if rounding > ROUNDED * found.norm(rank):
        return None, found.right
    return _settled(found, factors, rank, 1)


def _settled(found: _Ritz, factors: Factors, rank: int, again: int) -> tuple[Result | None, Array]:
    """Steps 3 and 4, up to so many times again; and X as it is then."""
    result = found.checked(factors, rank)
    if result is None and again:
        return _settled(_Ritz.of(factors, found.through(factors)), factors, rank, again - 1)
    return result, found.right


def _passes(ratio: float) -> int:
    """How often X is to go through M^T M; half a time more is in U = M V."""
    if not ratio < 1:
        return MOST_PASSES + 1
    return max(int(np.ceil(np.log(REMAINING) / np.log(max(ratio, STEEPEST)) - 0.5)), 1)


@dataclass(frozen=True, slots=True)
class _Ritz:
    """M on a block: the squares of its singular values there, U and V, the largest first."""

    squares: Floats
    left: Array
    right: Array

    @classmethod
    def of(cls, factors: Factors, block: Array) -> _Ritz:
        image = times(factors, block)
        gram = gram_of(image)
        if not np.isfinite(gram).all():
            return cls(np.zeros(len(gram)), image, block)
        squares, turn = falling(gram)
        scale = 1 / np.sqrt(np.maximum(squares, STEEPEST * squares[0]))
        return cls(squares, image @ (turn * scale).astype(image.dtype), block @ turn.astype(image.dtype))

    def norm(self, rank: int) -> float:
        """Of the product that the leading triplets make."""
        return float(np.sqrt(np.sum(self.squares[:rank])))

    def through(self, factors: Factors) -> Array:
        """Orthonormal columns of M^T M times the block."""
        return orthonormal(back(factors, self.left))

    def checked(self, factors: Factors, rank: int) -> Result | None:
        """U and U^T M, if they are near enough."""
        squares, left = self.squares, self.left[:, :rank]
        images = back(factors, left)
        missed = images - self.right[:, :rank] * np.sqrt(squares[:rank]).astype(left.dtype)
        near = error_bound(squares[:rank] * np.sum(missed**2, axis=0), squares, rank) <= TOLERANCE
        return (left, images.T) if near else None


@lru_cache(maxsize=16)
def _random(features: int, width: int) -> Array:
    normal = np.random.default_rng(RANDOM_SEED).standard_normal((features, width))
    block = np.linalg.qr(normal)[0].astype(np.float32)
    block.flags.writeable = False
    return block
