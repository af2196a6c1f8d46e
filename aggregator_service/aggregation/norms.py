"""Norms and inner products of B A from rank x rank Gram matrices; the product itself is never formed.

||B A||_F^2 = tr((B^T B)(A A^T)),   <B_i A_i, B_j A_j> = tr((B_j^T B_i)(A_i A_j^T))
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.stacks import Array, Stack, StackedAdapter

# Where the trace is this small a part of its bound, float32 has cancelled too many digits of it.
CANCELLED: Final = 1e-3
# Between these, float32 Gram matrices neither overflow nor lose digits to denormal numbers.
SMALLEST: Final = 1e-24
LARGEST: Final = 1e30


def squared_norms(adapter: StackedAdapter) -> list[NDArray[np.float64]]:
    """||B A||_F^2 of each module, group by group, scaling left out.

    Gram matrices are taken in float32, which leaves some 1e-6 of the norm, and again in float64 for the
    modules where that is not so: where B and A cancel each other, or are tiny or huge.
    """
    return [_squared_norms(stack) for stack in adapter]


def _squared_norms(stack: Stack) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares, bounds = _traces(stack.lora_A, stack.lora_B)
        good = (squares > CANCELLED * bounds) & (bounds > SMALLEST) & (bounds < LARGEST)
    if not good.all():
        again = np.flatnonzero(~good)
        exact, _ = _traces(stack.lora_A[again].astype(np.float64), stack.lora_B[again].astype(np.float64))
        squares[again] = np.maximum(exact, 0.0)  # rounding can leave a tiny negative sum
    return squares


def _traces(lora_A: Array, lora_B: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The traces, and tr(B^T B) tr(A A^T), which they cannot pass."""
    gram_A = (lora_A @ lora_A.swapaxes(1, 2)).astype(np.float64)
    gram_B = (lora_B.swapaxes(1, 2) @ lora_B).astype(np.float64)
    traces_A, traces_B = np.trace(gram_A, axis1=1, axis2=2), np.trace(gram_B, axis1=1, axis2=2)
    return np.einsum("mij,mij->m", gram_A, gram_B), traces_A * traces_B


def delta_norm(adapter: StackedAdapter) -> float:
    """||S_k|| of HetLoRA: the Frobenius norm of B A over all modules together."""
    return float(np.sqrt(sum(float(squares.sum()) for squares in squared_norms(adapter))))
