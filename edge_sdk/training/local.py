"""Local training: batches through a trainer until the steps are done or the time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edge_sdk.runtimes.base import Batch
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, Tensor
from hetlora.errors import TrainingDiverged
from hetlora.messages.device import TrainingSettings


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training made of the adapter, and of the cores where those were trained instead. Losses are of the
    first and the last batch, each before its step and with the pruning penalty; `steps` is below the plan's
    where time ran out."""

    adapter: Adapter
    cores: Mapping[str, Tensor]
    steps: int
    first_loss: float
    last_loss: float
    seconds: float


def train_locally(
    trainer: Trainer,
    batches: Iterator[Batch],
    settings: TrainingSettings,
    *,
    max_seconds: float,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    timer: Callable[[], float] = time.perf_counter,
) -> TrainingResult:
    """Take the plan's steps, at least one, and no further one once `max_seconds` have passed.

    A late update is thrown away whole, an early one with fewer steps counts. `on_step` is told the number of
    the step, from 1, and its loss.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
        NonFiniteValues: the adapter or a core is, though the losses were not.
    """
    started = timer()
    losses: list[float] = []
    while len(losses) < settings.steps:
        loss = trainer.step(next(batches))
        losses.append(loss)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"loss of step {len(losses)} of {settings.steps}", got=loss, expected="a finite number"
            )
        on_step(len(losses), loss)
        if timer() - started >= max_seconds:
            break
    return TrainingResult(
        trainer.adapter(), trainer.cores(), len(losses), losses[0], losses[-1], timer() - started
    )
