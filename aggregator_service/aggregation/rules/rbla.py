"""RBLA, rank-based LoRA aggregation (Chen et al., arXiv 2408.08699, section on the aggregation strategy).

    B[:, i] <- sum_{k: r_k > i} n_k B_k[:, i] / sum_{k: r_k > i} n_k,   A[i, :] likewise

1. Weigh each update by its number of examples, or all alike (`weights`).
2. Average every rank over those who hold it: no dilution by zeros.
3. Two guards that are ours, off by default. A rank with fewer than `quorum` owners stays what it was, or a
   lone wide client would own it (methods, D.3). n owners move it by n / (n + `shrinkage`) of the way.

A rank that nobody held stays what it was; the paper leaves this open.
"""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.rules.base import FactorRule
from aggregator_service.aggregation.slice_sum import SliceSum
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.messages.rules import RblaRule


class Rbla(FactorRule[RblaRule]):
    """The mean of each rank over its owners."""

    def mean(self, total: SliceSum) -> StackedAdapter:
        mean = total.divided(total.held)
        quorum, shrinkage = self.settings.quorum, self.settings.shrinkage
        for stack, before, owners in zip(mean, self.state.adapter, total.owners, strict=True):
            step = np.where(owners >= quorum, owners / np.maximum(owners + shrinkage, 1e-300), 0.0)
            stack.lora_A[:] = before.lora_A + step[:, :, None] * (stack.lora_A - before.lora_A)
            stack.lora_B[:] = before.lora_B + step[:, None, :] * (stack.lora_B - before.lora_B)
        return mean
