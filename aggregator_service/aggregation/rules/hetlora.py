"""HetLoRA's sparsity-weighted aggregation of unequal ranks (Cho et al., arXiv 2401.06432).

    lora_B <- sum_k w_k pad(B_k),   lora_A <- sum_k w_k pad(A_k),   w_k = ||S_k|| / Z,   Z = sum_j ||S_j||

where S_k are the singular values of client k's B A, so that ||S_k|| is its Frobenius norm. The factors
themselves are averaged, not their change; the same scalar weights both; example counts do not appear.

1. Zero-pad each update to the run's rank: the sums have that rank, and an update adds to its leading part.
2. Weigh: the sums hold ||S_k|| B_k and ||S_k|| A_k, and Z is summed beside them.
3. Normalise: divide by Z. If every norm is zero (the paper leaves 0/0 open) the result is the plain mean.

The paper speaks of the reconstructed model of a client: by default one norm over the whole model (`weights`
"model"). Ports also weigh each layer by its own norm: "module" does so, with a Z for each module.
Ablations are rules of their own: weights by examples, or none, are `zero_pad`; pruning is the device's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.slice_sum import SliceSum
from hetlora.messages.rules import HetLoraRule


@dataclass(slots=True)
class HetLoraPartial:
    """Sums weighted by norms; and plain sums, for as long as a module has no weight."""

    weighted: SliceSum
    plain: SliceSum | None
    norm_total: float = 0.0

    def drop_plain(self) -> None:
        """Once every module has weight, updates of norm zero have none: their plain sums are not needed."""
        if all((weight > 0).all() for weight in self.weighted.weight):
            self.plain = None


class HetLora(RoundRule[HetLoraRule]):
    """Zero-padding and norm weights."""

    finite = "norms"

    def init(self) -> HetLoraPartial:
        return HetLoraPartial(self.zero_sum(), self.zero_sum())

    def accumulate(self, partial: HetLoraPartial, leaf: Sequence[Update]) -> list[float]:
        self.check_ranks(leaf)
        adapters = [update.adapter for update in leaf]
        trusts = np.array([update.trust for update in leaf])
        squares = [squared_norms(adapter) for adapter in adapters]
        norms = trusts * np.sqrt([sum(float(own.sum()) for own in squared) for squared in squares])
        if self.settings.weights == "model":
            partial.weighted.add(adapters, norms)
        else:
            for adapter, squared, trust in zip(adapters, squares, trusts, strict=True):
                partial.weighted.add_by_module(adapter, [trust * np.sqrt(own) for own in squared])
        partial.norm_total += float(norms.sum())
        partial.drop_plain()
        if partial.plain is not None:
            partial.plain.add(adapters, trusts)
        return [float(norm) for norm in norms]

    def merge(self, left: HetLoraPartial, right: HetLoraPartial) -> HetLoraPartial:
        left.weighted.merge(right.weighted)
        left.norm_total += right.norm_total
        if left.plain is not None and right.plain is not None:
            left.plain.merge(right.plain)
        left.drop_plain()
        return left

    def weight(self, total: HetLoraPartial, raw: float) -> float:
        """The share of the norms of whole models, also where modules are weighed each by its own."""
        return raw / total.norm_total if total.norm_total > 0 else 1 / total.weighted.count

    def finish(self, total: HetLoraPartial) -> GlobalState:
        mean = total.weighted.mean()
        if total.plain is not None:
            for into, plain, weight in zip(mean, total.plain.mean(), total.weighted.weight, strict=True):
                silent = weight == 0
                into.lora_A[silent], into.lora_B[silent] = plain.lora_A[silent], plain.lora_B[silent]
        return self.next_state(mean)
