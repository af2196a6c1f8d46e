"""Factors of one product turned towards other factors: their coordinates are arbitrary, and then are not.

(B Q, Q^T A) is the same product as (B, A) for any orthogonal Q, and balanced if (B, A) is: B^T B = A A^T. The
Q that brings both factors closest to (B', A') together,

    min ||B Q - B'||_F^2 + ||Q^T A - A'||_F^2,   Q = U V^T   with   B^T B' + A A'^T = U S V^T,

is that of the orthogonal Procrustes problem (Schönemann, Psychometrika 1966) for [B; A^T] and [B'; A'^T].
"""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.spectrum import refuse_non_finite
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of, zeros


def live(adapter: StackedAdapter, rank: int) -> StackedAdapter:
    """The ranks that act, in float64, padded with zeros to `rank`.

    A rank whose column of lora_B is zero only waits to be trained (`gauge.py` refills it), and is zero here.
    """
    result = zeros(adapter.spec, [rank] * len(groups_of(adapter.spec)))
    for into, stack in zip(result, adapter, strict=True):
        acts = np.any(stack.lora_B != 0, axis=1)
        into.lora_A[:, : stack.rank] = stack.lora_A * acts[:, :, None]
        into.lora_B[:, :, : stack.rank] = stack.lora_B
    return result


def turned(adapter: StackedAdapter, towards: StackedAdapter) -> StackedAdapter:
    """The same products in the coordinates closest to those of `towards`; both of one rank and layout.

    Raises:
        NonFiniteValues: NaN or infinity in either.
    """
    result = adapter.with_values(np.empty(adapter.values.shape))
    for into, stack, other in zip(result, adapter, towards, strict=True):
        overlap = stack.lora_B.swapaxes(1, 2) @ other.lora_B + stack.lora_A @ other.lora_A.swapaxes(1, 2)
        refuse_non_finite(float(np.linalg.norm(overlap)))
        left, _, right = np.linalg.svd(overlap)
        turn = left @ right
        into.lora_A[:] = turn.swapaxes(1, 2) @ stack.lora_A
        into.lora_B[:] = stack.lora_B @ turn
    return result
