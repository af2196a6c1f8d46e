"""How many updates are in memory at a time: up to 32, and fewer where they are large."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from aggregator_service.aggregation.rule import GlobalState, Handout, Update, UpdateRef
from aggregator_service.aggregation.stacks import StackedAdapter
from aggregator_service.aggregation.tree import BATCH_BYTES, reduce_leaf
from hetlora.adapter import AdapterSpec, ModuleSpec

SPEC = AdapterSpec((ModuleSpec("only", 2, 2),), scaling=1.0, max_rank=1)
REFS = [UpdateRef(f"{number:03}", 1, "") for number in range(40)]


@dataclass(frozen=True)
class Counting:
    """A rule whose partial is how many updates came at a time."""

    spec: AdapterSpec = SPEC

    def init(self) -> list[int]:
        return []

    def accumulate(self, partial: list[int], updates: Sequence[Update]) -> list[float]:
        partial.append(len(updates))
        return [1.0] * len(updates)

    def merge(self, into: list[int], other: list[int]) -> list[int]:
        return into + other

    def weight(self, total: list[int], raw: float) -> float:
        return raw

    def finish(self, total: list[int]) -> GlobalState:
        raise NotImplementedError

    def distribute(self, rank: int, seed: int = 0) -> Handout:
        raise NotImplementedError


@dataclass
class Loading:
    """Updates of a size in bytes, of which it counts how many are alive."""

    size_bytes: int
    loaded: list[weakref.ref[Any]] = field(default_factory=list)
    most: int = 0

    def __call__(self, ref: UpdateRef) -> Update:
        zeros = np.broadcast_to(np.float32(0), self.size_bytes // 4)  # of one number in memory
        self.loaded.append(weakref.ref(zeros))
        self.most = max(self.most, sum(own() is not None for own in self.loaded))
        return Update(StackedAdapter(SPEC, zeros, ()))


@pytest.mark.parametrize(
    ("size_bytes", "batches"),
    [
        (4, [32, 8]),
        (BATCH_BYTES // 32, [32, 8]),
        (BATCH_BYTES // 16, [16, 16, 8]),
        (BATCH_BYTES // 16 - 4, [17, 17, 6]),
        (2 * BATCH_BYTES, [1] * 40),
    ],
)
def test_batch_ends_at_32_updates_or_at_its_bytes(size_bytes: int, batches: list[int]) -> None:
    loading = Loading(size_bytes)
    assert reduce_leaf(Counting(), REFS, loading).partial == batches
    assert loading.most == max(batches)
