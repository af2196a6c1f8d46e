"""Sums of products B A, kept as factors: M = sum_k w_k B_k A_k is formed for one module at a time, at most.

    M = L R,   L = [w_1 B_1, w_2 B_2, ...] (out_features, S),   R = [A_1; A_2; ...] (S, in_features)

How M is kept follows from S, the sum of all ranks that are to come, which is known before the first update:

stack   the updates themselves with their weights, exact, while they take up to `STACK_BYTES`;
sketch  beyond it Y = M Omega and W = Psi M for fixed random Omega and Psi, in memory that does not grow
        with the cohort (Tropp, Yurtsever, Udell, Cevher, arXiv 1609.00048, Algorithms 1, 4 and 7).

Both are linear in M, so partials merge by joining or adding. How the leading singular vectors are had from
either stands in `spectrum.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.spectrum import Spectrum, of_factors, of_sketch
from aggregator_service.aggregation.stacks import Stack, StackedAdapter, groups_of
from hetlora.adapter import AdapterSpec

Floats = NDArray[np.float64]

STACK_BYTES: Final = 2**30
# Ranks of the sketch's range over the rank that is wanted, and of its co-range over that.
RANGE_FACTOR: Final = 4
CORANGE_FACTOR: Final = 2
SKETCH_SEED: Final = 160900048


@dataclass(slots=True)
class ProductStack:
    """M as the list of what it is the sum of, in order."""

    terms: list[tuple[StackedAdapter, float]] = field(default_factory=list)

    def add(self, adapters: Sequence[StackedAdapter], weights: Sequence[float]) -> None:
        """Add B A of each adapter, times its weight."""
        self.terms += zip(adapters, map(float, weights), strict=True)

    def merge(self, other: ProductStack) -> ProductStack:
        """Take another sum in."""
        self.terms += other.terms
        return self

    def spectra(self, rank: int) -> Iterator[list[Spectrum]]:
        """The leading `rank` singular triplets of each module, group by group."""
        weights = [weight for _, weight in self.terms]
        for stacks in zip(*(adapter for adapter, _ in self.terms), strict=True):
            scales = np.repeat(weights, [stack.rank for stack in stacks])
            yield [_stacked_spectrum(stacks, scales, number, rank) for number in range(len(stacks[0].lora_A))]


def _stacked_spectrum(stacks: Sequence[Stack], scales: Floats, number: int, rank: int) -> Spectrum:
    left = np.concatenate([stack.lora_B[number] for stack in stacks], axis=1, dtype=np.float64)
    right = np.concatenate([stack.lora_A[number] for stack in stacks], axis=0, dtype=np.float64)
    left *= scales
    return of_factors(left, right, rank)


@dataclass(slots=True)
class ProductSketch:
    """M as Y (modules, out_features, range) and W (modules, co-range, in_features), group by group."""

    spec: AdapterSpec
    range_rank: int
    ranges: list[Floats]
    coranges: list[Floats]

    @classmethod
    def zero(cls, spec: AdapterSpec, rank: int) -> ProductSketch:
        """The sketch of nothing, from which the leading `rank` singular triplets are wanted."""
        wide = RANGE_FACTOR * rank
        groups = groups_of(spec)
        return cls(
            spec,
            wide,
            [np.zeros((len(group), group.out_features, wide)) for group in groups],
            [np.zeros((len(group), CORANGE_FACTOR * wide, group.in_features)) for group in groups],
        )

    def add(self, adapters: Sequence[StackedAdapter], weights: Sequence[float]) -> None:
        """Add B A of each adapter, times its weight."""
        for index, stacks in enumerate(zip(*adapters, strict=True)):
            right = np.concatenate([stack.lora_A for stack in stacks], axis=1, dtype=np.float64)
            left = np.concatenate([stack.lora_B for stack in stacks], axis=2, dtype=np.float64)
            left *= np.repeat(np.asarray(weights, np.float64), [stack.rank for stack in stacks])
            omega, psi = self.tests(index)
            self.ranges[index] += left @ (right @ omega)
            self.coranges[index] += (psi @ left) @ right

    def merge(self, other: ProductSketch) -> ProductSketch:
        """Take another sketch in."""
        for into, more in zip(self.ranges + self.coranges, other.ranges + other.coranges, strict=True):
            into += more
        return self

    def tests(self, index: int) -> tuple[Floats, Floats]:
        """Omega (in_features, range) and Psi (co-range, out_features) of a group, standard normal."""
        group = groups_of(self.spec)[index]
        rng = np.random.default_rng([SKETCH_SEED, index])
        return (
            rng.standard_normal((group.in_features, self.range_rank)),
            rng.standard_normal((CORANGE_FACTOR * self.range_rank, group.out_features)),
        )

    def spectra(self, rank: int) -> Iterator[list[Spectrum]]:
        """The leading `rank` singular triplets of each module, group by group."""
        for index, (ranges, coranges) in enumerate(zip(self.ranges, self.coranges, strict=True)):
            _, psi = self.tests(index)
            yield [of_sketch(Y, W, psi, rank) for Y, W in zip(ranges, coranges, strict=True)]


ProductSum = ProductStack | ProductSketch


def zero_products(spec: AdapterSpec, rank: int, rank_total: int) -> ProductSum:
    """The sum of nothing, kept as suits a cohort whose ranks sum to `rank_total`."""
    if 4 * spec.parameters_per_rank * rank_total <= STACK_BYTES:
        return ProductStack()
    return ProductSketch.zero(spec, rank)


def merge_products(left: ProductSum, right: ProductSum) -> ProductSum:
    """Both sums as one; they are kept alike, as they are of one cohort."""
    if isinstance(left, ProductStack):
        assert isinstance(right, ProductStack)
        return left.merge(right)
    assert isinstance(right, ProductSketch)
    return left.merge(right)
