"""Progress in memory, as bytes: what a process that died left behind, and another one finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine_rounds import Files

from aggregator_service.aggregation.progress import Reached
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.worker.reached import reached_from_bytes, reached_tensors
from hetlora.stored_tensors import tensors_to_bytes


@dataclass
class Keeping:
    """Keeps whatever is reached, by its leaves; `begin_at` is where it is gone on from."""

    begin_at: int = 0
    kept: dict[int, bytes] = field(default_factory=dict)

    def found(self, rule: Rule[Any], refs: Sequence[UpdateRef]) -> Reached[Any]:
        if self.begin_at == 0:
            return Reached()
        return reached_from_bytes(self.kept[self.begin_at], rule.spec, rule.init())

    def due(self, leaf_count: int) -> bool:
        return True

    def keep(self, reached: Reached[Any]) -> None:
        self.kept[reached.leaf_count] = bytes_of(reached)


def bytes_of(reached: Reached[Any]) -> bytes:
    return tensors_to_bytes(reached_tensors(reached))


@dataclass
class Counted:
    """Counts what is read."""

    source: Files
    reads: int = 0

    def load(self, ref: UpdateRef) -> Update:
        self.reads += 1
        return self.source.load(ref)
