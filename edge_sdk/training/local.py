"""Local training: batches through a trainer until the steps are done or the time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Begun:
    """How far a training is: the loss of each step, before it, and the seconds that all took."""

    losses: Sequence[float]
    seconds: float


NOTHING_BEFORE: Final = Begun((), 0.0)


def train_locally(
    trainer: Trainer,
    batches: Iterator[Batch],
    settings: TrainingSettings,
    *,
    max_seconds: float,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    before: Begun = NOTHING_BEFORE,
    keep: Callable[[Begun], None] = lambda begun: None,
    timer: Callable[[], float] = time.perf_counter,
) -> TrainingResult:
    """Take the plan's steps, at least one, and no further one once `max_seconds` have passed.

    A late update is thrown away whole, an early one with fewer steps counts. `on_step` is told the number of
    the step, from 1, and its loss; `keep` after that, how far training is. With what it was told in an
    earlier process as `before`, and a trainer and batches that stand there, training goes on as if it had
    never stopped, but for `max_seconds`, which are counted anew.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
        NonFiniteValues: the adapter or a core is, though the losses were not.
    """
    started = timer()
    losses = [*before.losses]
    while len(losses) < settings.steps:
        loss = trainer.step(next(batches))
        losses.append(loss)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"loss of step {len(losses)} of {settings.steps}", got=loss, expected="a finite number"
            )
        on_step(len(losses), loss)
        here_seconds = timer() - started
        keep(Begun(losses, before.seconds + here_seconds))
        if here_seconds >= max_seconds:
            break
    seconds = before.seconds + timer() - started
    return TrainingResult(trainer.adapter(), trainer.cores(), len(losses), losses[0], losses[-1], seconds)
