"""Sums of products in memory that does not grow: what random test matrices see of M = sum_k w_k B_k A_k.

    Y = M Omega (out_features, q),   W = Psi M (l, in_features),   C = Theta M (t, in_features)

with Omega, Psi and Theta standard normal, fixed and known to every worker. Source: Tropp, Yurtsever, Udell
and Cevher, "Practical sketching algorithms for low-rank matrix approximation", SIAM J. Matrix Anal. Appl. 38
(2017), arXiv 1609.00048: Algorithms 1 (sketch), 4 (approximation) and 7 (cut to a rank).

1. Q = orthonormal basis of Y; X = argmin ||Psi Q X - W||; M^ = Q X.
2. Cut the singular value decomposition of X to rank r: [M^]_r.

If the rank of M is at most q, M^ = M. Else, with tail_j^2 the sum of the squares of all but the j largest
singular values of M, Theorem 4.3 there (f(s, t) = s / (t - s - 1) for real numbers) gives

    E ||M - M^||_F^2 <= (1 + f(q, l)) min_{j < q - 1} (1 + f(j, q)) tail_j^2

and, as [M^]_r is the nearest to M^ of its rank, ||M - [M^]_r||_F <= tail_r + 2 ||M - M^||_F (section 6
there), so that with j = r

    E ||M - [M^]_r||_F <= (1 + 2 sqrt((1 + f(q, l)) (1 + f(r, q)))) tail_r:

that many times the error of the best approximation. With q = 4 r and l = 2 q as here it is some 4.3;
measured it is 1.2 to 1.4, whether the spectrum is flat or falls.

That bound speaks of a tail which nobody knows. What the error came to is measured: ||Theta (M - N)||_F^2 / t
is ||M - N||_F^2 in expectation for every N that does not depend on Theta. With t = 16 its standard deviation
is 35 % where M - N has rank 1, and falls with the root of the number of directions that it spreads over.

Modules whose M takes no more numbers than its sketch would, q out_features + (l + t) in_features, have M
itself, exact: at rank 256 all of up to some 3,000 features a side. So the memory for a module never passes
that of M, nor, where M is large, what the rank that is wanted asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.linalg import solve_triangular

from aggregator_service.aggregation.spectrum import Spectrum, of_dense, refuse_non_finite
from aggregator_service.aggregation.stacks import Floats, Group, StackedAdapter, groups_of
from hetlora.adapter import AdapterSpec

# q over the rank that is wanted, and l over q.
RANGE_FACTOR: Final = 4
CORANGE_FACTOR: Final = 2
CHECK_ROWS: Final = 16
SKETCH_SEED: Final = 160900048

Weight = float | Sequence[Floats]  # of a product; or of each of its modules, (modules,) group by group


def weight_of(weight: Weight, index: int) -> float | Floats:
    """The weight of a group's modules."""
    return weight if isinstance(weight, float | int) else weight[index]


@dataclass(slots=True)
class ProductSketch:
    """Y (modules, out_features, q), and W above C (modules, l + t, in_features), group by group.

    Of a group of small modules, M (modules, out_features, in_features) in place of Y, and no rows.
    """

    spec: AdapterSpec
    rank: int  # of which the leading triplets are wanted
    ranges: list[Floats]
    rows: list[Floats]

    @classmethod
    def zero(cls, spec: AdapterSpec, rank: int) -> ProductSketch:
        """The sketch of nothing, from which the leading `rank` singular triplets are wanted."""
        ranges, rows = [], []
        for group in groups_of(spec):
            wide = range_of(group, rank)
            tall = CORANGE_FACTOR * wide + CHECK_ROWS
            if group.out_features * (group.in_features - wide) <= tall * group.in_features:
                wide, tall = group.in_features, 0
            ranges.append(np.zeros((len(group), group.out_features, wide)))
            rows.append(np.zeros((len(group), tall, group.in_features)))
        return cls(spec, rank, ranges, rows)

    def add(self, adapters: Sequence[StackedAdapter], weights: Sequence[Weight]) -> None:
        """Add B A of each adapter, times its weight."""
        for index, stacks in enumerate(zip(*adapters, strict=True)):
            right = np.concatenate([stack.lora_A for stack in stacks], axis=1, dtype=np.float64)
            left = np.concatenate([stack.lora_B for stack in stacks], axis=2, dtype=np.float64)
            start = 0
            for stack, weight in zip(stacks, weights, strict=True):
                scale = np.reshape(weight_of(weight, index), (-1, 1, 1))
                left[:, :, start : start + stack.rank] *= scale
                start += stack.rank
            if self._whole(index):
                self.ranges[index] += left @ right
                continue
            omega, psi_theta = self.test_matrices(index)
            self.ranges[index] += left @ (right @ omega)
            self.rows[index] += (psi_theta @ left) @ right

    def merge(self, other: ProductSketch) -> ProductSketch:
        """Take another sketch in."""
        for into, more in zip(self.ranges + self.rows, other.ranges + other.rows, strict=True):
            into += more
        return self

    def scaled(self, by: Sequence[Floats]) -> ProductSketch:
        """The sum with each module times its own number, which `by` holds (modules,) group by group."""
        for own, ranges, rows in zip(by, self.ranges, self.rows, strict=True):
            ranges *= own[:, None, None]
            rows *= own[:, None, None]
        return self

    def _whole(self, index: int) -> bool:
        """Whether M itself is kept of a group."""
        return self.rows[index].size == 0

    def test_matrices(self, index: int) -> tuple[Floats, Floats]:
        """Omega (in_features, q), and Psi above Theta (l + t, out_features), of a group; standard normal."""
        group = groups_of(self.spec)[index]
        wide = range_of(group, self.rank)
        return _test_matrices(SKETCH_SEED, index, group.in_features, group.out_features, wide)

    def spectra(self, rank: int, energies: bool = True) -> Iterator[list[Spectrum]]:
        """The leading `rank` singular triplets of each module, group by group; energies come anyway."""
        for index, (ranges, rows) in enumerate(zip(self.ranges, self.rows, strict=True)):
            if self._whole(index):
                yield [of_dense(matrix, rank) for matrix in ranges]
                continue
            _, psi_theta = self.test_matrices(index)
            yield [of_sketch(*seen, psi_theta, rank) for seen in zip(ranges, rows, strict=True)]

    def images(self, rights: Sequence[Floats]) -> Iterator[list[tuple[Floats, float]]]:
        """M^ @ right, and ||M||_F^2 as W has it in expectation, of each module; see `ProductStack.images`."""
        for index, (ranges, rows, own) in enumerate(zip(self.ranges, self.rows, rights, strict=True)):
            if self._whole(index):
                pairs = zip(ranges, own, strict=True)
                yield [
                    (matrix @ columns, refuse_non_finite(float(np.sum(matrix**2))))
                    for matrix, columns in pairs
                ]
                continue
            _, psi_theta = self.test_matrices(index)
            found = []
            for seen, columns in zip(zip(ranges, rows, strict=True), own, strict=True):
                basis, core = _approximation(*seen, psi_theta)
                energy = float(np.sum(seen[1] ** 2)) / len(seen[1])
                found.append((basis @ (core @ columns), refuse_non_finite(energy)))
            yield found


def range_of(group: Group, rank: int) -> int:
    """q of a group: no more than the rank that M can have, at which M^ = M."""
    return min(RANGE_FACTOR * rank, group.in_features, group.out_features)


# Drawn once, and not for each leaf; those of a large model's groups take some 10 MB each.
@lru_cache(maxsize=32)
def _test_matrices(
    seed: int, index: int, in_features: int, out_features: int, wide: int
) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([seed, index])
    return (
        rng.standard_normal((in_features, wide)),
        rng.standard_normal((CORANGE_FACTOR * wide + CHECK_ROWS, out_features)),
    )


def of_sketch(ranges: Floats, rows: Floats, psi_theta: Floats, rank: int) -> Spectrum:
    """The leading `rank` triplets of the M of which tests saw Y and [W; C]; float64."""
    basis, core = _approximation(ranges, rows, psi_theta)
    found = of_dense(core, rank)
    left = basis @ found.left
    missed = rows[-CHECK_ROWS:] - (psi_theta[-CHECK_ROWS:] @ left * found.values) @ found.right
    square = float(np.sum(missed**2)) / CHECK_ROWS
    energy = float(np.sum(found.values**2)) + square
    return Spectrum(left, found.values, found.right, energy, float(np.sqrt(square)))


def _approximation(ranges: Floats, rows: Floats, psi_theta: Floats) -> tuple[Floats, Floats]:
    """Q (out_features, q) and X (q, in_features)."""
    basis, _ = np.linalg.qr(ranges)
    turned, triangle = np.linalg.qr(psi_theta[:-CHECK_ROWS] @ basis)
    return basis, solve_triangular(triangle, turned.T @ rows[:-CHECK_ROWS], check_finite=False)
