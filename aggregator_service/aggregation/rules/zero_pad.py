"""FedAvg of zero-padded factors; at equal ranks FedIT (Zhang et al., arXiv 2305.05644, section 3).

    lora_B <- sum_k p_k pad(B_k),   lora_A <- sum_k p_k pad(A_k),   p_k = n_k / sum_j n_j

1. Zero-pad each update to the run's rank.
2. Weigh by the number of examples, or all alike (`weights`).
3. Average both factors; a rank that few hold shrinks by the share of the others.
"""

from __future__ import annotations

from aggregator_service.aggregation.rules.base import FactorRule
from hetlora.messages.rules import ZeroPadRule


class ZeroPad(FactorRule[ZeroPadRule]):
    """The mean of zero-padded factors."""
