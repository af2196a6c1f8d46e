"""Rank algebra of HetLoRA (arXiv 2401.06432): truncate, zero-pad, the norm of B A, the pruned tail."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from hetlora.adapter import Adapter, LoraFactors
from hetlora.errors import RankOutOfRange

# Added to gamma r before it is rounded down: 0.7 * 10 is 6.999... in binary, and the paper means 7.
FLOOR_SLACK: Final = 1e-9
# Added to a sum of squares where its root is differentiated: the slope of sqrt is infinite at zero, where
# lora_B starts. The root of this is far below any trained norm.
NORM_EPSILON: Final = 1e-12


def truncate(adapter: Adapter, rank: int) -> Adapter:
    """Keep the leading `rank` rows of each lora_A and columns of each lora_B (HetLoRA, distribution).

    A module whose rank is already at or below `rank` stays as it is.

    Raises:
        RankOutOfRange: `rank` is negative.
    """
    if rank < 0:
        raise RankOutOfRange("a rank cannot be negative", got=rank)
    return Adapter(
        adapter.spec,
        {
            module.name: LoraFactors(factors.lora_A[:rank], factors.lora_B[:, :rank])
            for module, factors in adapter
        },
    )


def zero_pad(adapter: Adapter, rank: int) -> Adapter:
    """Add zero rows to each lora_A and zero columns to each lora_B until the rank is `rank`.

    Raises:
        RankOutOfRange: `rank` is below the adapter's own rank or above the specification's maximum.
    """
    if not adapter.rank <= rank <= adapter.spec.max_rank:
        raise RankOutOfRange(
            "rank to pad to", got=rank, expected=f"{adapter.rank} to {adapter.spec.max_rank}"
        )
    return Adapter(
        adapter.spec,
        {
            module.name: LoraFactors(
                np.pad(factors.lora_A, ((0, rank - factors.rank), (0, 0))),
                np.pad(factors.lora_B, ((0, 0), (0, rank - factors.rank))),
            )
            for module, factors in adapter
        },
    )


def extended(adapter: Adapter, fresh: Adapter) -> Adapter:
    """The adapter at the ranks of `fresh`, whose own numbers fill what lies beyond the adapter's.

    Zeros would be dead: where a rank's row and column are both zero, so are their gradients. `fresh` has
    lora_B = 0, which keeps B A as it is.

    Raises:
        RankOutOfRange: a module of the adapter has a higher rank than in `fresh`.
    """
    factors = {}
    for module, own in adapter:
        wide = fresh.factors[module.name]
        if own.rank > wide.rank:
            raise RankOutOfRange(
                f"rank of module {module.name} to begin with", got=own.rank, expected=f"up to {wide.rank}"
            )
        factors[module.name] = LoraFactors(
            np.concatenate([own.lora_A, wide.lora_A[own.rank :]]),
            np.concatenate([own.lora_B, wide.lora_B[:, own.rank :]], axis=1),
        )
    return Adapter(adapter.spec, factors)


def module_delta_norm(factors: LoraFactors) -> float:
    """The Frobenius norm of B A from rank x rank Gram matrices, in float64.

    ||B A||_F^2 = tr((B^T B)(A A^T)), so the (out_features, in_features) product is never formed.
    """
    lora_A = factors.lora_A.astype(np.float64)
    lora_B = factors.lora_B.astype(np.float64)
    squared = float(np.sum((lora_B.T @ lora_B) * (lora_A @ lora_A.T)))
    return math.sqrt(max(squared, 0.0))  # rounding can leave a tiny negative sum


def delta_norm(adapter: Adapter) -> float:
    """||S_k|| of HetLoRA: the Frobenius norm of B A over all modules together, scaling left out."""
    return math.hypot(*(module_delta_norm(factors) for _, factors in adapter))


def pruned_rank(rank: int, pruning_decay: float) -> int:
    """c = floor(gamma r): how many leading ranks survive when HetLoRA's self-pruning cuts the tail."""
    return math.floor(pruning_decay * rank + FLOOR_SLACK)


def module_tail_norm(factors: LoraFactors, keep: int) -> float:
    """||lora_B[:, keep:]||_F * ||lora_A[keep:, :]||_F of one module, in float64."""
    lora_A, lora_B = factors.lora_A[keep:].astype(np.float64), factors.lora_B[:, keep:].astype(np.float64)
    return float(np.linalg.norm(lora_B)) * float(np.linalg.norm(lora_A))
