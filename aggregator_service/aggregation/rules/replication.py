"""Replication padding (Byun and Lee, arXiv 2406.17477): a missing rank is filled with that of its owners.

    C_i = mean of B_k[:, i] over the k with r_k > i
    B[:, i] <- sum_k p_k (B_k[:, i] if r_k > i else C_i),   p_k = n_k / sum_j n_j,   A[i, :] likewise

1. Average each rank over its owners, all alike.
2. Fill the ranks that an update lacks with that average.
3. Average all updates, weighted by the number of examples, or all alike (`weights`).

The paper has two tiers, a few clients of rank 20 and the rest of rank 5: the low ones are filled with the
mean of the high ones. With more tiers, whoever holds a rank fills it. Its C_i is read as a plain mean; were
it weighted as the average is, the rule would be RBLA, which it is where `weights` are uniform.

A rank that nobody held stays what it was; the paper leaves this open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.slice_sum import SliceSum
from hetlora.messages.rules import ReplicationRule


@dataclass(slots=True)
class ReplicationPartial:
    """Sums weighted by p_k, and sums of all alike but for their trust, of which the fill is made."""

    weighted: SliceSum
    plain: SliceSum


class Replication(RoundRule[ReplicationRule]):
    """The mean of updates whose missing ranks are those of the owners."""

    def init(self) -> ReplicationPartial:
        return ReplicationPartial(self.zero_sum(), self.zero_sum())

    def accumulate(self, partial: ReplicationPartial, leaf: Sequence[Update]) -> list[float]:
        adapters, weights = [update.adapter for update in leaf], self.weights_of(leaf)
        partial.weighted.add(adapters, weights)
        partial.plain.add(adapters, [update.trust for update in leaf])
        return weights

    def merge(self, left: ReplicationPartial, right: ReplicationPartial) -> ReplicationPartial:
        return ReplicationPartial(left.weighted.merge(right.weighted), left.plain.merge(right.plain))

    def weight(self, total: ReplicationPartial, raw: float) -> float:
        return raw / total.weighted.total_weight

    def finish(self, total: ReplicationPartial) -> GlobalState:
        weighted, plain = total.weighted, total.plain
        result = weighted.values.with_values(weighted.values.values.copy())
        groups = zip(result, plain.values, self.state.adapter, strict=True)
        for index, (stack, sums, before) in enumerate(groups):
            all_weight, owners = weighted.weight[index][:, None], plain.held[index]
            fill = (all_weight - weighted.held[index]) / np.where(owners > 0, owners, 1.0)
            lora_A = (stack.lora_A + fill[:, :, None] * sums.lora_A) / all_weight[:, :, None]
            lora_B = (stack.lora_B + fill[:, None, :] * sums.lora_B) / all_weight[:, None, :]
            stack.lora_A[:] = np.where(owners[:, :, None] > 0, lora_A, before.lora_A)
            stack.lora_B[:] = np.where(owners[:, None, :] > 0, lora_B, before.lora_B)
        return self.next_state(result.with_values(result.values.astype(np.float32)))
