"""FLASC (Kuo, Raje, Rajesh, Smith, arXiv 2406.05233): sparse down, dense training, sparse change up.

    device k receives P_k = top(P, d_down),   trains all of it to P'_k,   sends top(P'_k - P_k, d_up)
    P <- P + 1/K sum_k top(P'_k - P_k, d_up)

where P are all factors of the adapter as one vector, and top(x, d) keeps the share d of x that is largest by
magnitude, over all modules at once, and zeroes the rest.

1. Send the largest entries of the global adapter; the others are zero on the device, and trained as well.
2. Train densely.
3. Send the largest entries of the change against what was received.
4. Add the mean change to the dense global adapter. The paper steps with FedAdam on it: `optimizers.py`.

Unequal devices have unequal densities at one rank, as in the paper's comparison (which tiers 1/16, 1/4, 1):
a device that takes rank r of the run's R is sent the global rank R at `download_density` r / R and sends
`upload_density` r / R. Shares are rounded up. The paper averages all devices alike (`weights`).
"""

from __future__ import annotations

import numpy as np

from aggregator_service.aggregation.cutting import truncated
from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.rules.change_rule import ChangeRule
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.messages.device import Adaptation
from hetlora.messages.rules import FlascRule
from hetlora.selection import kept_entries, largest_entries


class Flasc(ChangeRule[FlascRule]):
    """The mean of sparse changes against a sparse download."""

    adds_changes = True

    @property
    def trained_rank(self) -> int:
        return self.state.rank

    def handout(self, rank: int, seed: int) -> Handout:
        state, share = self.state, rank / self.state.rank
        density = self.settings.download_density * share
        sparse = _largest(truncated(state.adapter, state.rank), density)
        adaptation = Adaptation(upload_density=self.settings.upload_density * share)
        return Handout(sparse, state.frozen, adaptation, density=density)


def _largest(adapter: StackedAdapter, density: float) -> StackedAdapter:
    """The largest entries over all factors, the others zero."""
    values = adapter.values.astype(np.float32)
    (kept,) = largest_entries([values], kept_entries(density, values.size))
    sparse = np.zeros_like(values)
    sparse[kept] = values[kept]
    return adapter.with_values(sparse)
