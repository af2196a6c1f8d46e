"""What the rules share that add the mean change of the factors to the global ones."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator_service.aggregation.change_sum import ChangeSum
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules.base import RoundRule, Settings
from hetlora.errors import RankOutOfRange


class ChangeRule(RoundRule[Settings]):
    """Global factors plus sum_k p_k (what device k changed), at the ranks that it was sent."""

    compares = True

    def init(self) -> ChangeSum:
        return ChangeSum.zero(self.state.adapter.spec, self.state.rank)

    def accumulate(self, partial: ChangeSum, leaf: Sequence[Update]) -> list[float]:
        weights = self.weights_of(leaf)
        for update, weight in zip(leaf, weights, strict=True):
            _check_ranks(update, self.state.rank)
            partial.add(update, weight)
        return weights

    def merge(self, left: ChangeSum, right: ChangeSum) -> ChangeSum:
        return left.merge(right)

    def weight(self, total: ChangeSum, raw: float) -> float:
        return raw / total.weight

    def finish(self, total: ChangeSum) -> GlobalState:
        return self.next_state(total.added_to(self.state.adapter))


def _check_ranks(update: Update, run_rank: int) -> None:
    ranks = update.ranks
    if ranks is None:
        return
    if len(ranks) < update.adapter.rank:
        raise RankOutOfRange(
            "update is wider than its selection", got=update.adapter.rank, expected=f"0 to {len(ranks)}"
        )
    if len({*ranks}) < len(ranks) or not all(0 <= rank < run_rank for rank in ranks):
        raise RankOutOfRange("selected ranks", got=ranks, expected=f"each once, 0 to {run_rank - 1}")
