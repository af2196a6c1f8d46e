"""Checkpoints of a training: what is kept of it between two steps, and how often that pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_sdk.units import MIB
from hetlora.adapter import Tensor
from hetlora.messages.common import Message, PositiveCount
from hetlora.messages.evaluation import EvaluationReport

# What checkpoints may take of the time that training takes.
TIME_SHARE: Final = 0.01
# Flash wears out: so much, written twice by the database, is 150 GB in a month of ten minutes of training a
# day, a quarter of a percent of what a card of 64 GB bears at a thousand writes of each cell.
BYTES_PER_SECOND: Final = 4 * MIB
# Before the first one is measured: a quick card, and the flush of it, as none costs more than one too many.
FIRST_BYTES_PER_SECOND: Final = 60e6
FLUSH_SECONDS: Final = 0.003


class FirstScore(Message):
    """How the model did before the first step, and the seconds that it took."""

    report: EvaluationReport
    seconds: float


class Trained(Message):
    """How far a training is: its steps, and the seconds that they took; what it was scored at before."""

    steps: PositiveCount
    seconds: float
    first_score: FirstScore | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A training between two steps; `state` is all that its trainer needs to go on."""

    trained: Trained
    state: Mapping[str, Tensor]


class CheckpointPace:
    """Says after which steps a checkpoint is due.

    Each is paid for before it is made: by training for so long that it takes `TIME_SHARE` of that time, and
    writes no more than `BYTES_PER_SECOND`. Where a step takes longer than that, each step has its own.

    Args:
        state_bytes: what one takes.
        timer: seconds, for differences.
    """

    def __init__(self, state_bytes: int, timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer = timer
        self._least_seconds = state_bytes / BYTES_PER_SECOND
        self._expected_seconds = FLUSH_SECONDS + state_bytes / FIRST_BYTES_PER_SECOND
        self._last = timer()

    def is_due(self) -> bool:
        """Whether enough was trained since the last one."""
        trained_seconds = self._timer() - self._last
        return trained_seconds >= max(self._expected_seconds / TIME_SHARE, self._least_seconds)

    def make(self, checkpoint: Callable[[], None]) -> None:
        """Make one, and note what it took; one that fails is tried again when the next would be due."""
        started = self._timer()
        try:
            checkpoint()
        finally:
            self._last = self._timer()
            self._expected_seconds = self._last - started
