"""A cohort of any size out of a few stored updates, each read as often as there are references to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil
from pydantic import TypeAdapter

from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.rule import GlobalState, Update, UpdateRef
from aggregator_service.aggregation.rules import RULES, first_state
from benchmarks.gemma_adapters import gemma_spec
from hetlora.adapter import initial_adapter
from hetlora.digest import sha256_of, verify_digest
from hetlora.messages.rules import AnyRule, RuleSettings

_RULES: Final[TypeAdapter[AnyRule]] = TypeAdapter(RuleSettings)


@dataclass(slots=True)
class Served:
    """Reads updates as the service does; those that are stored stand for as many as are asked for.

    `stored` are files, or bytes in memory; with `digests` the bytes are checked against them, as the service
    checks what it has stored. `resident` is what the process held after each `every` updates.
    """

    reader: UpdateReader
    stored: Sequence[Path | bytes]
    digests: Sequence[str] = ()
    every: int = 0
    loaded: int = 0
    loaded_bytes: int = 0
    resident: list[int] = field(default_factory=list)

    def load(self, ref: UpdateRef) -> Update:
        """The update of a ref, parsed and validated."""
        number = int(ref.sha256, 16) % len(self.stored)
        found = self.stored[number]
        data = found.read_bytes() if isinstance(found, Path) else found
        if self.digests:
            verify_digest("stored update", got=sha256_of(data), expected=self.digests[number])
        self.loaded += 1
        self.loaded_bytes += len(data)
        if self.every and self.loaded % self.every == 0:
            self.resident.append(int(psutil.Process().memory_info().rss))
        return Update(self.reader.read(data), ref.example_count)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds on the wall, and of processor time, which other work on the machine moves less."""

    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], object]) -> Timing:
    """How long one call takes."""
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    return Timing(time.perf_counter() - started, time.process_time() - cpu_started)


def references(count: int, ranks: Sequence[int]) -> list[UpdateRef]:
    """Distinct updates with example counts from 1 to 5; `ranks` are those of the stored ones, in turn."""
    return [
        UpdateRef(f"{number:064x}", 1 + number % 5, rank=ranks[number % len(ranks)])
        for number in range(count)
    ]


def rule_named(name: str) -> AnyRule:
    """A rule with its paper's constants."""
    return _RULES.validate_python(name)


def state_before(settings: AnyRule, run_rank: int) -> GlobalState:
    """A run's first state."""
    initial = initial_adapter(gemma_spec(run_rank), run_rank, np.random.default_rng(0))
    return first_state(settings, initial)


def reader_for(settings: AnyRule, run_rank: int) -> UpdateReader:
    """The reader that the service gives a round of this rule; it knows no header yet."""
    return UpdateReader(gemma_spec(run_rank), RULES[type(settings)].finite)


def stored_updates(folder: str) -> list[Path]:
    """The updates in a folder, in the order in which they were written."""
    return sorted(Path(folder).glob("*.safetensors"))
