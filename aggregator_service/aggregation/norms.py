"""Norms and inner products of B A from rank x rank Gram matrices; the product itself is never formed.

||B A||_F^2 = tr((B^T B)(A A^T)),   <B_i A_i, B_j A_j> = tr((B_j^T B_i)(A_i A_j^T))
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.stacks import Array, Stack, StackedAdapter

# Where the trace is this small a part of its bound, float32 has cancelled too many digits of it.
CANCELLED: Final = 1e-3
# Between these, float32 Gram matrices neither overflow nor lose digits to denormal numbers.
SMALLEST: Final = 1e-24
LARGEST: Final = 1e30
COLUMNS: Final = 4  # of a Gram matrix that are taken at a time


def squared_norms(adapter: StackedAdapter) -> list[NDArray[np.float64]]:
    """||B A||_F^2 of each module, group by group, scaling left out.

    Gram matrices are taken in float32, which leaves some 1e-6 of the norm, and again in float64 for the
    modules where that is not so: where B and A cancel each other, or are tiny or huge. They are finite if and
    only if all of the adapter's numbers are.
    """
    if adapter.squared_norms is not None:
        return [*adapter.squared_norms]
    stacks = [*adapter]
    squares, bounds = _traces(stacks)
    good = (squares > CANCELLED * bounds) & (bounds > SMALLEST) & (bounds < LARGEST)
    ends = [*accumulate(len(stack.lora_A) for stack in stacks)]
    parts = [slice(start, end) for start, end in pairwise([0, *ends])]
    by_group = [squares[part] for part in parts]
    if not good.all():
        for stack, own, part in zip(stacks, by_group, parts, strict=True):
            again = np.flatnonzero(~good[part])
            lora_A, lora_B = stack.lora_A[again].astype(np.float64), stack.lora_B[again].astype(np.float64)
            exact, _ = _traces([Stack(lora_A, lora_B)])
            own[again] = np.maximum(exact, 0.0)  # rounding can leave a tiny negative sum
    return by_group


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _traces(stacks: Sequence[Stack]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The traces, and tr(B^T B) tr(A A^T), which they cannot pass."""
    rank = max(stack.rank for stack in stacks)
    grams = np.zeros((2, sum(len(stack.lora_A) for stack in stacks), rank, rank), stacks[0].lora_A.dtype)
    start = 0
    for stack in stacks:
        end = start + len(stack.lora_A)
        own = grams[:, start:end, : stack.rank, : stack.rank]  # groups may be of unequal ranks
        _upper_gram(stack.lora_A, own[0])
        np.matmul(stack.lora_B.swapaxes(1, 2), stack.lora_B, out=own[1])
        start = end
    exact = grams.astype(np.float64).reshape(*grams.shape[:2], rank * rank)
    sides = exact[:, :, :: rank + 1].sum(axis=2)
    return (exact[0] * exact[1]) @ _counts(rank), sides[0] * sides[1]


@lru_cache(maxsize=64)
def _counts(rank: int) -> NDArray[np.float64]:
    """How often a number of a flat symmetric matrix counts: those above the diagonal stand for two."""
    return np.triu(2.0 - np.eye(rank)).reshape(-1)


def _upper_gram(rows: Array, gram: Array) -> None:
    """Write what lies on and above the diagonal of rows @ rows^T; rows are (modules, rank, features).

    In narrow blocks of columns: numpy turns to BLAS's symmetric product for the whole, which takes twice as
    long where rows are as few and as long as these. lora_B lies the other way round, and suits it.
    """
    rank = rows.shape[1]
    width = max(1, min(COLUMNS, rank // 2))
    for start in range(0, rank, width):
        # More rows than columns, as numpy would see a symmetric product in a square one too.
        high = min(max(start + width, 2 * width), rank)
        columns = rows[:, start : start + width].swapaxes(1, 2)
        np.matmul(rows[:, :high], columns, out=gram[:, :high, start : start + width])
