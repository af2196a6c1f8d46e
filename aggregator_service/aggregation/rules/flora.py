"""FLoRA (Wang et al., arXiv 2409.05976): updates are stacked, merged into the model, and adapters start anew.

    lora_A = [p_1 A_1; ...; p_K A_K],   lora_B = [B_1, ..., B_K],   p_k = n_k / sum_j n_j
    W <- W + s lora_B lora_A = W + s sum_k p_k B_k A_k

as given in methods.md (B.1); the scale s is the specification's, once. (Public code has merged with other
scales, or without p_k: methods.md, A.5 and C.4.)

1. Stack the updates, p_k on one side of each product alone: no cross terms, any ranks.
2. Merge the stack into the model. The service has no weights: what was merged is the frozen adapter, which
   every device adds to its model.
3. Start anew: lora_A random, other numbers in each round, lora_B zero.

The stack's rank is the sum of all ranks, round upon round. The frozen adapter is the best approximation of
rank `frozen_rank` of all that was merged: exact while that is no less than the modules' features. The norm of
what a round cuts off is told as `norm_cut_off`. A product that a run begins with is merged before round 0.
"""

from __future__ import annotations

from dataclasses import replace

from aggregator_service.aggregation.frozen import fold_sum
from aggregator_service.aggregation.gauge import fresh
from aggregator_service.aggregation.products import ProductStack, zero_products
from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules.product_rule import ProductPartial, ProductRule
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.messages.rules import FloraRule


class Flora(ProductRule[FloraRule]):
    """The mean product, merged; the adapter starts anew."""

    adds_changes = True

    @property
    def restarts(self) -> bool:
        return True

    @property
    def always_restarts(self) -> bool:
        return True

    @classmethod
    def start(cls, settings: FloraRule, initial: StackedAdapter) -> GlobalState:
        frozen, _ = fold_sum(initial.spec, ProductStack([(initial, 1.0)]), settings.frozen_rank, 1.0)
        adapter = initial if frozen is None else fresh(initial.spec, initial.rank, 0)
        return GlobalState(adapter, initial.rank, frozen=frozen)

    def init(self) -> ProductPartial:
        rank = self.settings.frozen_rank
        return ProductPartial(zero_products(self.state.adapter.spec, rank, self.rank_total))

    def finish(self, total: ProductPartial) -> GlobalState:
        spec, state = self.state.adapter.spec, self.state
        if state.frozen is not None:
            total.products.add([state.frozen], [total.weight])
        frozen, lost = fold_sum(spec, total.products, self.settings.frozen_rank, 1 / total.weight)
        after = self.next_state(fresh(spec, state.rank, state.round_index + 1))
        return replace(after, frozen=frozen, figures={"norm_cut_off": lost})
