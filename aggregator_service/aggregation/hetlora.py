"""HetLoRA's sparsity-weighted aggregation of unequal ranks (Cho et al., arXiv 2401.06432).

    lora_B <- sum_k w_k pad(B_k),   lora_A <- sum_k w_k pad(A_k),   w_k = ||S_k|| / Z,   Z = sum_j ||S_j||

where S_k are the singular values of client k's B A over the whole model, so that ||S_k|| is its Frobenius
norm (`hetlora.algebra.delta_norm`). The factors themselves are averaged, not their change; the same scalar
weights both; example counts do not appear.

1. Zero-pad each update to the run's rank: the sums have that rank, and an update adds to its leading part.
2. Weigh: the sums hold ||S_k|| B_k and ||S_k|| A_k, and Z is summed beside them.
3. Normalise: divide by Z. If every norm is zero (the paper leaves 0/0 open) the result is the plain mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors
from hetlora.algebra import delta_norm
from hetlora.errors import RankOutOfRange

Sum = NDArray[np.float64]


@dataclass(slots=True)
class HetLoraPartial:
    """Sums over some updates; weighted by their norms, or plain while every norm so far is zero."""

    lora_A: list[Sum]  # one (rank, in_features) per module
    lora_B: list[Sum]  # one (out_features, rank) per module
    norm_total: float = 0.0
    count: int = 0

    @property
    def divisor(self) -> float:
        """What normalises the sums: Z, or the number of updates."""
        return self.norm_total if self.norm_total > 0 else float(self.count)


@dataclass(frozen=True, slots=True)
class HetLora:
    """The rule for adapters of `spec`, padded to `rank`; sums are kept in float64."""

    spec: AdapterSpec
    rank: int

    def init(self) -> HetLoraPartial:
        return HetLoraPartial(
            [np.zeros((self.rank, module.in_features)) for module in self.spec.modules],
            [np.zeros((module.out_features, self.rank)) for module in self.spec.modules],
        )

    def accumulate(self, partial: HetLoraPartial, update: Adapter) -> float:
        """Add one update and return ||S_k||.

        Raises:
            RankOutOfRange: the update's rank is above the rule's.
        """
        if update.rank > self.rank:
            raise RankOutOfRange(
                "update is wider than the run", got=update.rank, expected=f"0 to {self.rank}"
            )
        norm = delta_norm(update)
        _let_norms_rule(partial, norm)
        partial.count += 1
        partial.norm_total += norm
        if norm > 0 or partial.norm_total == 0:
            scale = norm if norm > 0 else 1.0
            for sum_A, sum_B, (_, factors) in zip(partial.lora_A, partial.lora_B, update, strict=True):
                sum_A[: factors.rank] += scale * factors.lora_A.astype(np.float64)
                sum_B[:, : factors.rank] += scale * factors.lora_B.astype(np.float64)
        return norm

    def merge(self, left: HetLoraPartial, right: HetLoraPartial) -> HetLoraPartial:
        _let_norms_rule(left, right.norm_total)
        _let_norms_rule(right, left.norm_total)
        for into, other in zip(left.lora_A + left.lora_B, right.lora_A + right.lora_B, strict=True):
            into += other
        left.norm_total += right.norm_total
        left.count += right.count
        return left

    def weight(self, total: HetLoraPartial, raw: float) -> float:
        return (raw if total.norm_total > 0 else 1.0) / total.divisor

    def finish(self, total: HetLoraPartial) -> Adapter:
        assert total.count > 0, "a round commits only with updates"
        return Adapter(
            self.spec,
            {
                module.name: LoraFactors(
                    (sum_A / total.divisor).astype(np.float32), (sum_B / total.divisor).astype(np.float32)
                )
                for module, sum_A, sum_B in zip(self.spec.modules, total.lora_A, total.lora_B, strict=True)
            },
        )


def _let_norms_rule(partial: HetLoraPartial, norm: float) -> None:
    """Once any norm is positive, updates of norm zero have weight zero: their plain sums are dropped."""
    if norm > 0 and partial.norm_total == 0:
        for plain_sum in partial.lora_A + partial.lora_B:
            plain_sum[:] = 0.0
