"""What rules share: the round they stand in, and weighted sums of zero-padded factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from aggregator_service.aggregation.cutting import truncated
from aggregator_service.aggregation.finite import FiniteCheck
from aggregator_service.aggregation.rule import PLAIN, GlobalState, Handout, Rule, Update
from aggregator_service.aggregation.slice_sum import SliceSum, check_rank
from aggregator_service.aggregation.stacks import Array, StackedAdapter
from hetlora.adapter import AdapterSpec
from hetlora.errors import RankOutOfRange
from hetlora.messages.common import Message
from hetlora.messages.device import Adaptation
from hetlora.messages.rules import Weighted
from hetlora.sent_parts import sent_places

Settings = TypeVar("Settings", bound=Message)


@dataclass(frozen=True, slots=True)
class RoundRule(Rule[Any], Generic[Settings]):
    """One round of a rule: what it is set to, and the state that the round began with."""

    settings: Settings
    state: GlobalState
    rank_total: int = 0  # of the updates to come, as far as rules have to know it beforehand

    # Whether factors after a round are those of an SVD, which share no coordinates with those before it.
    free_gauge: ClassVar[bool] = False
    # Whether a number of a factor means the same in every round, neither turned by an SVD nor folded away:
    # what rounding left out of an update can then be added to the next (ADR 0019).
    same_coordinates: ClassVar[bool] = True
    # Which pass over an update's numbers has to find those that are not finite.
    finite: ClassVar[FiniteCheck] = "read"
    # Whether updates are compared with what their devices were sent.
    compares: ClassVar[bool] = False
    # Whether the state moves by what each device changed, whichever version it was sent (ADR 0014).
    adds_changes: ClassVar[bool] = False

    @property
    def spec(self) -> AdapterSpec:
        """What every update is an adapter of."""
        return self.state.adapter.spec

    @property
    def adaptation(self) -> Adaptation:
        """Which part of the adapter devices train and send in this round."""
        return PLAIN

    @property
    def smallest_rank(self) -> int:
        """The lowest rank that a device may take."""
        return 1

    @property
    def trained_rank(self) -> int | None:
        """The rank that every device is sent and trains where the one it takes counts what it sends back."""
        return None

    @property
    def restarts(self) -> bool:
        """Whether the adapter begins anew after this round, what it was being folded away."""
        return False

    @property
    def always_restarts(self) -> bool:
        """Whether it does so after every round, so that there is nothing for a server optimizer to move."""
        return False

    def learned(self, state: GlobalState) -> dict[str, Array]:
        """What a server optimizer moves of a state, by name: the factors that devices send in this round."""
        sent = [("lora_A", "lora_B")[place] for place in sent_places(self.adaptation)]
        return {
            f"{factor}.{index}": getattr(stack, factor)
            for index, stack in enumerate(state.adapter)
            for factor in sent
        }

    def with_learned(self, state: GlobalState, numbers: Mapping[str, Array]) -> GlobalState:
        """A state with other numbers in these places."""
        adapter = state.adapter.with_values(state.adapter.values.copy())
        for index, stack in enumerate(adapter):
            stack.lora_A[:] = numbers.get(f"lora_A.{index}", stack.lora_A)
            stack.lora_B[:] = numbers.get(f"lora_B.{index}", stack.lora_B)
        return replace(state, adapter=adapter)

    @classmethod
    def start(cls, settings: Settings, initial: StackedAdapter) -> GlobalState:
        """The state before the first round, from the run's initial adapter."""
        return GlobalState(initial, initial.rank)

    def check_ranks(self, leaf: Sequence[Update]) -> None:
        """Raise unless all updates fit the run.

        Raises:
            RankOutOfRange: one is wider.
        """
        for update in leaf:
            check_rank(update.adapter, self.state.rank)

    def weights_of(self, leaf: Sequence[Update]) -> list[float]:
        """n_k of each update, or 1 where the settings' `weights` are uniform; times its trust.

        Raises:
            RankOutOfRange: an update is wider than the run.
        """
        self.check_ranks(leaf)
        uniform = isinstance(self.settings, Weighted) and self.settings.weights == "uniform"
        return [float(update.trust * (1 if uniform else update.example_count)) for update in leaf]

    def zero_sum(self) -> SliceSum:
        """The sum of no update, as wide as the run."""
        return SliceSum.zero(self.state.adapter.spec, self.state.rank)

    def next_state(self, adapter: StackedAdapter) -> GlobalState:
        """The state after the round, all but the adapter as it was."""
        return replace(self.state, adapter=adapter, round_index=self.state.round_index + 1, figures={})

    def distribute(self, rank: int, seed: int = 0) -> Handout:
        if not self.smallest_rank <= rank <= self.state.rank:
            raise RankOutOfRange(
                "rank that the rule serves no device at",
                got=rank,
                expected=f"{self.smallest_rank} to {self.state.rank}",
            )
        return self.handout(rank, seed)

    def handout(self, rank: int, seed: int) -> Handout:
        """What `distribute` gives, at a rank that a device may take."""
        return Handout(truncated(self.state.adapter, rank), self.state.frozen, self.adaptation)


class FactorRule(RoundRule[Settings]):
    """A weighted mean of zero-padded factors, until a rule says otherwise."""

    finite = "sum"

    def init(self) -> SliceSum:
        return self.zero_sum()

    def accumulate(self, partial: SliceSum, leaf: Sequence[Update]) -> list[float]:
        weights = self.weights_of(leaf)
        partial.add([update.adapter for update in leaf], weights)
        return weights

    def merge(self, left: SliceSum, right: SliceSum) -> SliceSum:
        return left.merge(right)

    def weight(self, total: SliceSum, raw: float) -> float:
        return raw / total.total_weight

    def finish(self, total: SliceSum) -> GlobalState:
        return self.next_state(self.mean(total))

    def mean(self, total: SliceSum) -> StackedAdapter:
        """The new global adapter of the sums."""
        return total.mean()
