"""FFA-LoRA (Sun et al., arXiv 2403.12313): lora_A is frozen at its initialisation, lora_B is averaged.

    lora_B[:, i] <- sum_{k: r_k > i} n_k B_k[:, i] / sum_{k: r_k > i} n_k,   lora_A <- lora_A

1. Send the leading r_k ranks: all devices hold prefixes of one lora_A, which nobody trains.
2. Devices train lora_B and send it alone, half of the traffic.
3. Average lora_B. With one lora_A for all, the mean of the factors is the mean of the products.

The paper has equal ranks; prefixes and means over the owners are our reading for unequal ones
(`one_factor.py`). Its constant scaling alpha is the specification's here.
"""

from __future__ import annotations

from aggregator_service.aggregation.rules.one_factor import Factor, OneFactorRule
from hetlora.messages.rules import FfaRule


class Ffa(OneFactorRule[FfaRule]):
    """lora_B over its owners; lora_A never moves."""

    @property
    def sent(self) -> Factor:
        return "lora_B"
