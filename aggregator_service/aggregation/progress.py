"""How far a reduction came, for another process that goes on with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from aggregator_service.aggregation.rule import Rule, UpdateRef

Partial = TypeVar("Partial")
Digit = tuple[int, Partial] | None  # how many, and these merged


@dataclass(frozen=True, slots=True, eq=False)
class Reached(Generic[Partial]):
    """The carry of a round's first leaves, and the raw weights of their updates in their order."""

    leaf_count: int = 0
    digits: tuple[Digit[Partial], ...] = ()
    raw_weights: tuple[float, ...] = ()


BEGINNING: Final[Reached[Any]] = Reached()


class Progress(Protocol):
    """Where a reduction keeps how far it came."""

    def found(self, rule: Rule[Any], refs: Sequence[UpdateRef]) -> Reached[Any]:
        """The furthest that is kept of these very updates, from which the reduction goes on."""
        ...

    def due(self, leaf_count: int) -> bool:
        """Whether it is worth its while to keep what has been reached with so many leaves."""
        ...

    def keep(self, reached: Reached[Any]) -> None:
        """Keep it; nothing of it is held on to."""
        ...


class Nowhere:
    """Keeps nothing, so that every reduction begins at its first leaf."""

    def found(self, rule: Rule[Any], refs: Sequence[UpdateRef]) -> Reached[Any]:
        return BEGINNING

    def due(self, leaf_count: int) -> bool:
        return False

    def keep(self, reached: Reached[Any]) -> None:
        """Nothing is ever due."""


NOWHERE: Final = Nowhere()
