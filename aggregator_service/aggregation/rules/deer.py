"""DEeR's deviation eliminator (Zhu et al., arXiv 2410.12926): one factor at a time, equal ranks.

    even round:  lora_B <- sum_k p_k B_k,   lora_A stays
    odd round:   lora_A <- sum_k p_k A_k,   lora_B stays

The paper's theorem: the mean of the factors is the mean of the products if one factor is equal on all
devices. Hence alternating minimisation over the factor that begins at zero and the one that does not.

1. Send both factors at the run's rank.
2. Devices train the one whose turn it is, lora_B first, and send it alone.
3. Average it.

In the paper's code one round is both turns, lora_B and then lora_A, with an exchange after each; here each
exchange is a round of its own. Ranks must be equal: a narrower device holds a prefix of the other factor, so
that it is no longer the same for all and the theorem says nothing. Another rank than the run's is refused,
when it is asked for and when it is sent: such a run needs `min_rank` at `max_rank` and no self-pruning.

The paper's second half, a regulator of the noise of differential privacy, waits for privacy itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules.one_factor import Factor, OneFactorRule, factor_in_turn
from aggregator_service.aggregation.slice_sum import SliceSum
from hetlora.errors import RankOutOfRange
from hetlora.messages.rules import DeerRule


class Deer(OneFactorRule[DeerRule]):
    """One factor a round, in turn, at one rank for all.

    Raises:
        RankOutOfRange: from `distribute` and `accumulate`, at any rank but the run's.
    """

    @property
    def sent(self) -> Factor:
        return factor_in_turn(self.state.round_index)

    @property
    def smallest_rank(self) -> int:
        return self.state.rank

    def accumulate(self, partial: SliceSum, leaf: Sequence[Update]) -> list[float]:
        for update in leaf:
            for ranks in update.adapter.ranks:
                self._check(int(ranks.min()))
                self._check(int(ranks.max()))
        return super().accumulate(partial, leaf)

    def _check(self, rank: int) -> None:
        if rank != self.state.rank:
            raise RankOutOfRange(
                "DEeR takes one rank for all devices, in each module", got=rank, expected=self.state.rank
            )
