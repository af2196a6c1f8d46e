"""Who reduces a round: this process, several, or a Ray cluster; all to the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from aggregator_service.aggregation.progress import NOWHERE, Progress
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.aggregation.tree import Aggregate


class Source(Protocol):
    """Where updates are read from; an engine may pickle it, to read them elsewhere."""

    def load(self, ref: UpdateRef) -> Update:
        """The update of a ref."""
        ...


class Engine(Protocol):
    """Reduces the updates of a round in the shape of `tree.py`."""

    def aggregate(
        self, rule: Rule[Any], refs: Sequence[UpdateRef], source: Source, progress: Progress = NOWHERE
    ) -> Aggregate:
        """The state after a round, from what `progress` has of it on.

        Raises:
            StateConflict, NonFiniteValues, SpecMismatch, SettingsError, RankOutOfRange: see `tree.aggregate`.
            ServiceFailed: workers die again and again.
        """
        ...

    def close(self) -> None:
        """Let go of what the engine holds."""
        ...
