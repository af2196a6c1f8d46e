"""RoLoRA (Chen et al., arXiv 2502.01755): rounds of lora_B alone and of lora_A alone take turns.

    even round:  lora_B <- sum_k p_k B_k,   lora_A stays
    odd round:   lora_A <- sum_k p_k A_k,   lora_B stays

1. Send both factors; the plan says which of them is trained in this round.
2. Devices train that factor and send it alone, half of the traffic.
3. Average it: exact, as the other factor is the same for all.

lora_B comes first, in the run's first round (index 0): it begins at zero, so that lora_A has no gradient
before. Unequal ranks: `one_factor.py`.
"""

from __future__ import annotations

from aggregator_service.aggregation.rules.one_factor import Factor, OneFactorRule, factor_in_turn
from hetlora.messages.rules import RoLoraRule


class RoLora(OneFactorRule[RoLoraRule]):
    """One factor a round, in turn, over its owners."""

    @property
    def sent(self) -> Factor:
        return factor_in_turn(self.state.round_index)
