"""residual_exact, our own: the global product moves by the weighted changes against what was sent.

    M <- M + eta sum_k w_k (B_k A_k - M_k),   w_k = n_k / sum_j n_j

where M is the global product at rank R (`state_rank`, twice the run's by default) and M_k what device k was
sent: M cut to its rank. It joins the unbiased change of FedHL (arXiv 2505.18494) with the compact algebra
of FLoRIST (arXiv 2506.09199). A defence can cap n_k, as for every rule (`Defence.clip`).

1. Send the leading r_k singular triplets of M, balanced; with `allocate` r_k by module (`allocation.py`).
   With `fold` send the rest of M along, frozen, so that every device trains on top of all of M.
2. Train from there; any rank, any rule of local training.
3. Sum the changes B_k A_k - M_k: the list of factors, or their sketch (`products.py`). What was sent
   enters once for all devices that were sent the same.
4. Add eta times the mean change to M, and cut to rank R.

What follows from the formula (tests hold it):
- A device that learned nothing changes nothing: the zero of a rank that it lacks means "no change". So no
  rank collapses, however few devices hold it.
- The sum is over products: no cross terms between devices, and the gauge of their factors is of no account.
- With all r_k = R and eta = 1 it is FlexLoRA.
- An update of an older version counts by its change against that version: rounds may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aggregator_service.aggregation.allocation import allocate
from aggregator_service.aggregation.cutting import cut, remainder
from aggregator_service.aggregation.gauge import balanced
from aggregator_service.aggregation.products import (
    ProductStack,
    ProductSum,
    merge_products,
    zero_products,
)
from aggregator_service.aggregation.rule import GlobalState, Handout, Update
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of
from hetlora.messages.rules import ResidualExactRule


@dataclass(slots=True)
class ResidualPartial:
    """Weighted products of what came, and the weight of each thing that was sent."""

    products: ProductSum
    sent: dict[str, tuple[StackedAdapter, float]] = field(default_factory=dict)
    weight: float = 0.0

    def note_sent(self, name: str, adapter: StackedAdapter, weight: float) -> None:
        """Add weight to what was sent under a name."""
        _, before = self.sent.get(name, (adapter, 0.0))
        self.sent[name] = (adapter, before + weight)


class ResidualExact(RoundRule[ResidualExactRule]):
    """The mean change of the product, added to the global product."""

    free_gauge = True
    same_coordinates = False
    adds_changes = True
    compares = True

    @classmethod
    def start(cls, settings: ResidualExactRule, initial: StackedAdapter) -> GlobalState:
        rank = settings.state_rank or 2 * initial.rank
        narrowest = min(min(g.in_features, g.out_features) for g in groups_of(initial.spec))
        rank = max(initial.rank, min(rank, narrowest))
        adapter = balanced(initial.spec, ProductStack([(initial, 1.0)]).spectra(rank), rank)
        for stack, begun in zip(adapter, initial, strict=True):
            # Ranks without a product begin as the run's own seed has them.
            empty = ~stack.lora_B[:, :, : begun.rank].any(axis=1)
            stack.lora_A[:, : begun.rank][empty] = begun.lora_A[empty]
        return GlobalState(adapter, initial.rank)

    def init(self) -> ResidualPartial:
        state_rank = self.state.adapter.rank
        return ResidualPartial(zero_products(self.state.adapter.spec, state_rank, self.rank_total))

    def accumulate(self, partial: ResidualPartial, leaf: Sequence[Update]) -> list[float]:
        weights = self.weights_of(leaf)
        partial.products.add([update.adapter for update in leaf], weights)
        for update, weight in zip(leaf, weights, strict=True):
            assert update.received is not None, "the rule is about changes"
            partial.note_sent(update.sent_name, update.received, weight)
        partial.weight += sum(weights)
        return weights

    def merge(self, left: ResidualPartial, right: ResidualPartial) -> ResidualPartial:
        left.products = merge_products(left.products, right.products)
        for name, (adapter, weight) in right.sent.items():
            left.note_sent(name, adapter, weight)
        left.weight += right.weight
        return left

    def weight(self, total: ResidualPartial, raw: float) -> float:
        return raw / total.weight

    def finish(self, total: ResidualPartial) -> GlobalState:
        state, rate = self.state, self.settings.server_rate
        names = sorted(total.sent)
        terms = [*(total.sent[name][0] for name in names), state.adapter]
        total.products.add(terms, [*(-total.sent[name][1] for name in names), total.weight / rate])
        spectra = [*total.products.spectra(state.adapter.rank)]
        adapter = balanced(state.adapter.spec, spectra, state.adapter.rank, rate / total.weight)
        lost = np.sqrt(sum(one.error**2 for group in spectra for one in group)) * rate / total.weight
        return replace(self.next_state(adapter), figures={"norm_cut_off": float(lost)})

    def handout(self, rank: int, seed: int) -> Handout:
        adapter, run_rank = self.state.adapter, self.state.rank
        if self.settings.allocate:
            ranks = allocate(adapter, rank, run_rank)
        else:
            ranks = [np.full(len(group), rank, np.intp) for group in groups_of(adapter.spec)]
        frozen = remainder(adapter, ranks) if self.settings.fold else None
        return Handout(cut(adapter, ranks), frozen, self.adaptation)
