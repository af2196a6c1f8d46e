"""FedLoRU (Park and Klabjan, arXiv 2409.12371): low-rank updates, accumulated into a model of higher rank.

    each round:             lora_B <- sum_k p_k pad(B_k),   lora_A <- sum_k p_k pad(A_k)
    every so many rounds:   W <- W + scaling lora_B lora_A,   then lora_B <- 0, lora_A <- fresh

1. Average the factors, as FedAvg does (`zero_pad.py`).
2. After each `every_rounds` rounds fold their product into the frozen adapter, which every device adds to its
   model, and begin anew: lora_A as PEFT initialises it, another one each time, so that the next updates lie
   in another space; lora_B zero.

The paper adds to the weights themselves; the service has none, so that what was folded travels, at rank up to
`frozen_rank`, beyond which the smallest singular values are cut off for good; the norm of what a fold cuts
off is told as `norm_cut_off`. Its variants, one with several low-rank updates at once and one with ranks of
their own for clusters of devices, are not here. Ranks are equal in the paper; zero-padding is the plain
FedAvg reading of unequal ones.
"""

from __future__ import annotations

from dataclasses import replace

from aggregator_service.aggregation.frozen import fold_sum
from aggregator_service.aggregation.gauge import fresh
from aggregator_service.aggregation.products import ProductStack
from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules.base import FactorRule
from aggregator_service.aggregation.slice_sum import SliceSum
from hetlora.messages.rules import FedLoruRule


class FedLoru(FactorRule[FedLoruRule]):
    """The mean of zero-padded factors, folded away now and then."""

    same_coordinates = False

    @property
    def restarts(self) -> bool:
        return (self.state.round_index + 1) % self.settings.every_rounds == 0

    @property
    def always_restarts(self) -> bool:
        return self.settings.every_rounds == 1

    def finish(self, total: SliceSum) -> GlobalState:
        state = super().finish(total)
        if not self.restarts:
            return state
        spec, parts = state.adapter.spec, [state.adapter]
        if state.frozen is not None:
            parts.append(state.frozen)
        products = ProductStack([(part, 1.0) for part in parts])
        frozen, lost = fold_sum(spec, products, self.settings.frozen_rank, 1.0)
        adapter = fresh(spec, state.rank, state.round_index)
        return replace(state, adapter=adapter, frozen=frozen, figures={"norm_cut_off": lost})
