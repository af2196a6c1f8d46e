"""What a rule of aggregation is: init -> accumulate -> merge -> finish, and distribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.stacks import Array, StackedAdapter, stacked, unstacked
from hetlora.adapter import AdapterSpec
from hetlora.digest import sha256_of
from hetlora.messages.device import Adaptation
from hetlora.partial import with_cores

Partial = TypeVar("Partial")
PLAIN: Final = Adaptation()
PlanKey = tuple[str, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, order=True)
class UpdateRef:
    """Names an update by all that counts of it: equal refs are equal updates, and each counts.

    `sha256` is of its bytes, `received_sha256` of the adapter that its device was sent; `rank` is its plan's,
    and `ranks` are those that were drawn for it (`Adaptation.ranks`), if any were. `staleness` counts the
    rounds since it was sent (`staleness.py`).
    """

    sha256: str
    example_count: int = 1
    received_sha256: str = ""
    rank: int = 0
    ranks: tuple[int, ...] = ()
    staleness: int = 0

    @property
    def plan_key(self) -> PlanKey:
        """What tells one plan of a round from another; the bytes do not, where several ranks are equal."""
        return self.received_sha256, self.rank, self.ranks


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What a device made of what it was sent; both at full width, whatever part of them travelled.

    `received_sha256` names what was sent: updates with one name received the same. `ranks` are those of the
    plan's `Adaptation`: which ranks of the global adapter these are, where they are not the leading ones.
    Cores are multiplied into lora_B, on both sides. Rules multiply their own weight by `trust`: that of its
    staleness, times what a defence gives.
    """

    adapter: StackedAdapter
    example_count: int = 1
    received: StackedAdapter | None = None
    received_sha256: str = ""
    ranks: tuple[int, ...] | None = None
    trust: float = 1.0

    @property
    def sent_name(self) -> str:
        """What names the thing that its device was sent; its contents, where it has no name."""
        assert self.received is not None, "a change is against what was sent"
        if self.received_sha256:
            return self.received_sha256
        return sha256_of(repr(self.received.layout).encode() + self.received.values.tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class GlobalState:
    """What the server knows after a round: effective factors, scaled by the specification's constant alone.

    `adapter` is what `distribute` cuts from; `frozen` is added to every device's model and no longer trained;
    `tensors` are the rule's own. `figures` tell the operator what the round came to and carry nothing on.
    """

    adapter: StackedAdapter
    rank: int  # the run's: no device has more
    round_index: int = 0  # of the round that begins with this state
    frozen: StackedAdapter | None = None
    tensors: Mapping[str, Array] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Handout:
    """What a device of some rank is sent.

    `density` is the share of the adapter's entries that travel, the largest; the others are zero.
    """

    adapter: StackedAdapter
    frozen: StackedAdapter | None = None
    adaptation: Adaptation = PLAIN
    cores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    density: float = 1.0

    @property
    def received(self) -> StackedAdapter:
        """What an update is compared with, `Update.received`: the adapter, cores multiplied into lora_B."""
        return stacked(with_cores(unstacked(self.adapter), self.cores)) if self.cores else self.adapter


class Rule(Protocol[Partial]):
    """One round of one rule, opened on the state before it; a partial of many is as small as one of few."""

    @property
    def spec(self) -> AdapterSpec:
        """What every update is an adapter of."""
        ...

    @property
    def smallest_rank(self) -> int:
        """The lowest rank that a device may take."""
        ...

    @property
    def trained_rank(self) -> int | None:
        """The rank that every device is sent and trains where the one it takes counts what it sends back."""
        ...

    def init(self) -> Partial:
        """The partial of no update."""
        ...

    def accumulate(self, partial: Partial, leaf: Sequence[Update]) -> list[float]:
        """Add updates in place, in their order, and return their raw weights, before normalising.

        Raises:
            RankOutOfRange: an update is wider than the run.
        """
        ...

    def merge(self, left: Partial, right: Partial) -> Partial:
        """The partial of both; either argument may be changed and must not be used again."""
        ...

    def weight(self, total: Partial, raw: float) -> float:
        """The aggregation weight, within the cohort of `total`, of an update with this raw weight."""
        ...

    def finish(self, total: Partial) -> GlobalState:
        """The state after the round."""
        ...

    def distribute(self, rank: int, seed: int = 0) -> Handout:
        """What the state before the round gives a device of this rank; `seed` is its own of the round.

        Raises:
            RankOutOfRange: below `smallest_rank`, or above the run's.
        """
        ...
