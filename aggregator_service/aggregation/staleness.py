"""What an update is worth that was trained on an older adapter.

FedBuff (Nguyen et al. 2022, arXiv 2106.06639) multiplies a change by s(tau) = 1 / sqrt(1 + tau), where tau
counts the steps that the server took since it sent the device its adapter.
"""

from __future__ import annotations

import math


def staleness_weight(staleness: int) -> float:
    """s(tau): 1 for a fresh update, half for one of three steps ago."""
    return 1 / math.sqrt(1 + staleness)
