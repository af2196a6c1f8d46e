"""Rounds on disk for the tests of engines, and workers that die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cohorts import RANK, SPEC, digest, settled, state_bits, trained

from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, unstacked
from aggregator_service.aggregation.tree import Aggregate
from aggregator_service.worker.stored_updates import UnreadableUpdate
from hetlora.messages.rules import AnyRule
from hetlora.tensors import adapter_to_bytes

DIFFERENT: Final = 30


@dataclass(frozen=True, slots=True)
class Files:
    """Updates under a folder by their digests; `others` are what the files do not hold."""

    folder: Path
    others: Mapping[str, tuple[StackedAdapter, tuple[int, ...] | None]]

    def load(self, ref: UpdateRef) -> Update:
        received, ranks = self.others[ref.received_sha256]
        data = (self.folder / ref.sha256).read_bytes()
        return Update(UpdateReader(SPEC).read(data), ref.example_count, received, ref.received_sha256, ranks)


@dataclass(frozen=True, slots=True)
class Lost:
    """Where a certain update is no longer there."""

    source: Files
    victim: UpdateRef

    def load(self, ref: UpdateRef) -> Update:
        if ref == self.victim:
            raise UnreadableUpdate(ref.sha256)
        return self.source.load(ref)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Where a certain update is another adapter."""

    source: Files
    victim: UpdateRef
    adapter: StackedAdapter

    def load(self, ref: UpdateRef) -> Update:
        update = self.source.load(ref)
        return replace(update, adapter=self.adapter) if ref == self.victim else update


@dataclass(frozen=True, slots=True)
class Stuck:
    """Never gives an update, and tells which process waits for it."""

    pids: Path

    def load(self, ref: UpdateRef) -> Update:
        (self.pids / str(os.getpid())).touch()
        time.sleep(600)
        raise AssertionError


@dataclass(frozen=True, slots=True)
class Deadly:
    """Kills its process where a certain update is read; once, or every time."""

    source: Files
    marker: Path
    victim: UpdateRef
    always: bool = False

    def load(self, ref: UpdateRef) -> Update:
        if ref == self.victim and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.source.load(ref)


def stored_round(folder: Path, rule: AnyRule, count: int) -> tuple[Rule[Any], list[UpdateRef], Files]:
    """A round on a state with a history, of `count` updates at ranks 1 to RANK, few of them different."""
    state = settled(rule)
    smallest = open_rule(rule, state).smallest_rank
    ranks = [max(smallest, 1 + number % RANK) for number in range(count)]
    opened = open_rule(rule, state, sum(ranks))
    files: list[UpdateRef] = []
    others = {}
    for number, rank in enumerate(ranks[:DIFFERENT]):
        handout = opened.distribute(rank, number)
        update = trained(handout, number)
        ref = UpdateRef(digest(update.adapter), 1, digest(handout.received), rank)
        others[ref.received_sha256] = (handout.received, update.ranks)
        (folder / ref.sha256).write_bytes(adapter_to_bytes(unstacked(update.adapter)))
        files.append(ref)
    refs = [
        replace(files[number % DIFFERENT], example_count=1 + number // DIFFERENT) for number in range(count)
    ]
    return opened, refs, Files(folder, others)


def bits(result: Aggregate) -> tuple[object, ...]:
    """All that must not depend on who reduced a round."""
    weights = sorted((ref.sha256, weight) for ref, weight in result.weights.items())
    return state_bits(result.state), result.state.adapter.values.dtype, {*result.state.tensors}, weights
