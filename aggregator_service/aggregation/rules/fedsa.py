"""FedSA-LoRA (Guo et al., arXiv 2410.01463): lora_A is shared, lora_B never leaves its device.

    lora_A[i, :] <- sum_{k: r_k > i} n_k A_k[i, :] / sum_{k: r_k > i} n_k,   lora_B^(k) stays with device k

1. Send the leading r_k ranks; a device that has a lora_B of its own in this run goes on from it instead.
2. Devices train both factors and send lora_A alone.
3. Average lora_A over the owners of each rank (the paper has equal ranks: `one_factor.py`).

There is no global model: the server's lora_B is the initial one, zero, for devices that have none yet, and
its product says nothing. Each device's own model is lora_B^(k) lora_A.
"""

from __future__ import annotations

from aggregator_service.aggregation.rules.one_factor import Factor, OneFactorRule
from hetlora.messages.device import Adaptation
from hetlora.messages.rules import FedSaRule


class FedSa(OneFactorRule[FedSaRule]):
    """lora_A over its owners; lora_B is each device's own."""

    @property
    def sent(self) -> Factor:
        return "lora_A"

    @property
    def adaptation(self) -> Adaptation:
        return Adaptation(private_lora_B=True)
