"""Local training: batches through a trainer until the steps are done or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edge_sdk.runtimes.base import Batch
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, Tensor
from hetlora.messages.device import TrainingSettings


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training made of the adapter, and of the cores where those were trained instead. Losses are of the
    first and the last batch, each before its step and with all penalties; `steps` is below the plan's
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
    seconds_before: float = 0.0,
    keep: Callable[[float], None] = lambda seconds: None,
    timer: Callable[[], float] = time.perf_counter,
) -> TrainingResult:
    """Take the plan's steps, at least one, and no further one once `max_seconds` have passed.

    Steps that the trainer had done before it was restored are among them. A late update is thrown away whole,
    an early one with fewer steps counts. `keep` is told the seconds so far, with those that a process before
    this one took; `on_step` after that the number of the step, from 1, and its loss.

    Raises:
        TrainingDiverged: the losses say that training leads nowhere; see `Trainer.step`.
        NonFiniteValues: the adapter or a core is, though the losses were not.
    """
    started = timer()
    while trainer.steps_done < settings.steps:
        loss = trainer.step(next(batches))
        seconds = timer() - started
        keep(seconds_before + seconds)
        on_step(trainer.steps_done, loss)
        if seconds >= max_seconds:
            break
    return TrainingResult(
        trainer.adapter(),
        trainer.cores(),
        trainer.steps_done,
        trainer.first_loss,
        trainer.last_loss,
        seconds_before + timer() - started,
    )
