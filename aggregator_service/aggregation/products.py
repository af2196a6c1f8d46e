"""Sums of products B A, kept as factors: M = sum_k w_k B_k A_k is formed for one module at a time, at most.

    M = L R,   L = [w_1 B_1, w_2 B_2, ...] (out_features, S),   R = [A_1; A_2; ...] (S, in_features)

How M is kept follows from S, the sum of all ranks that are to come, which is known before the first update:

stack   the updates themselves with their weights, exact, while they take up to `STACK_BYTES`;
sketch  beyond it, in memory that does not grow with the cohort (`sketch.py`).

Both are linear in M, so partials merge by joining or adding. How the leading singular vectors are had from
either stands in `spectrum.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aggregator_service.aggregation.sketch import ProductSketch, Weight, weight_of
from aggregator_service.aggregation.spectrum import Spectrum, of_factors, refuse_non_finite
from aggregator_service.aggregation.stacks import Array, Floats, Stack, StackedAdapter
from hetlora.adapter import AdapterSpec

STACK_BYTES: Final = 2**30


@dataclass(slots=True)
class ProductStack:
    """M as the list of what it is the sum of, in order."""

    terms: list[tuple[StackedAdapter, Weight]] = field(default_factory=list)

    def add(self, adapters: Sequence[StackedAdapter], weights: Sequence[Weight]) -> None:
        """Add B A of each adapter, times its weight."""
        self.terms += zip(adapters, weights, strict=True)

    def merge(self, other: ProductStack) -> ProductStack:
        """Take another sum in."""
        self.terms += other.terms
        return self

    def scaled(self, by: Sequence[Floats]) -> ProductStack:
        """The sum with each module times its own number, which `by` holds (modules,) group by group."""
        terms: list[tuple[StackedAdapter, Weight]] = [
            (adapter, [own * weight_of(weight, index) for index, own in enumerate(by)])
            for adapter, weight in self.terms
        ]
        return ProductStack(terms)

    def spectra(self, rank: int, energies: bool = True) -> Iterator[list[Spectrum]]:
        """The leading `rank` singular triplets of each module, group by group.

        Without `energies` it may be faster, and those of the spectra NaN.
        """
        return ([of_factors(*joined, rank, energies) for joined in group] for group in self._factors())

    def images(self, rights: Sequence[Floats]) -> Iterator[list[tuple[Floats, float]]]:
        """M @ right and ||M||_F^2 of each module, group by group; `rights` are (modules, in_features, n).

        Raises:
            NonFiniteValues: NaN or infinity in M.
        """
        for group, own in zip(self._factors(), rights, strict=True):
            yield [
                (
                    left * scales @ (right @ columns),
                    refuse_non_finite(_energy(left * scales, right.astype(np.float64))),
                )
                for (left, scales, right), columns in zip(group, own, strict=True)
            ]

    def _factors(self) -> Iterator[Iterator[tuple[Array, Floats, Array]]]:
        for index, stacks in enumerate(zip(*(adapter for adapter, _ in self.terms), strict=True)):
            yield _joined(stacks, [weight_of(weight, index) for _, weight in self.terms])


def _energy(left: Floats, right: Floats) -> float:
    """||L R||_F^2: from Gram matrices while these are smaller than L R, else of L R itself."""
    if left.shape[1] < min(left.shape[0], right.shape[1]):
        return max(float(np.sum((left.T @ left) * (right @ right.T))), 0.0)
    return float(np.sum((left @ right) ** 2))


def _joined(
    stacks: Sequence[Stack], weights: Sequence[float | Floats]
) -> Iterator[tuple[Array, Floats, Array]]:
    """L without its weights, these, and R, of each module of a group; in the place of those before."""
    ranks = [stack.rank for stack in stacks]
    ends = np.cumsum(ranks)
    (count, _, wide), high = stacks[0].lora_A.shape, stacks[0].lora_B.shape[1]
    dtype = np.result_type(*(stack.lora_A.dtype for stack in stacks))
    left, right = np.empty((high, ends[-1]), dtype), np.empty((ends[-1], wide), dtype)
    by_module = np.array([np.broadcast_to(weight, count) for weight in weights], np.float64)
    for number in range(count):
        for stack, end in zip(stacks, ends, strict=True):
            left[:, end - stack.rank : end] = stack.lora_B[number]
            right[end - stack.rank : end] = stack.lora_A[number]
        yield left, np.repeat(by_module[:, number], ranks), right


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
