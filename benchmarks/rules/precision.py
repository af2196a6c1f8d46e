"""One run in one precision of updates: the bytes that went up in its rounds, and what it learned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

from aggregator_service.aggregation.rules import open_rule
from benchmarks.rules.contest import BATCH_SIZE, ENTRANTS, LATE_SHARE, RUN_RANK
from benchmarks.rules.simulation import Setting, Train, rounds, train_client, whole
from benchmarks.tasks.opening import Name, open_task
from benchmarks.tasks.task import Task
from hetlora.messages.device import TrainingSettings, UploadPrecision


@dataclass(frozen=True, slots=True)
class Variant:
    """How updates go up."""

    precision: UploadPrecision
    feeds_back: bool


VARIANTS: Final[dict[str, Variant]] = {
    "float32": Variant("float32", False),
    "float16": Variant("float16", True),
    "float16_without_feedback": Variant("float16", False),
    "int8": Variant("int8", True),
    "int8_without_feedback": Variant("int8", False),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """The learning problem, and what all variants of it have in common; no device prunes itself."""

    task: Name
    data: Path
    work: Path
    rule: str
    clients: int
    cohort: int
    rounds: int
    steps: int
    learning_rate: float

    def opened(self, seed: int) -> Task:
        """The learning problem; its bundle is exported when it is first asked for."""
        return open_task(self.task, self.data, self.work, self.clients, seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores after each round, and all bytes that went up in it."""

    up_bytes: Sequence[int]
    scores: Sequence[float]


@dataclass(frozen=True, slots=True)
class PrecisionRow:
    """One variant over all seeds: bytes of an update, and the mean score over the last fifth of rounds."""

    variant: str
    update_bytes: float
    share: float  # of float32's bytes
    score: float
    deviation: float
    scores: Sequence[float]


def run_variant(trial: Trial, name: str, seed: int) -> Outcome:
    """Run one variant in this process."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return run_on(trial.opened(seed), trial, name, seed)


def run_on(task: Task, trial: Trial, name: str, seed: int, train: Train = train_client) -> Outcome:
    """Run one variant on an opened problem, by the SDK's training or another."""
    variant, rule = VARIANTS[name], ENTRANTS[trial.rule]
    training = TrainingSettings(
        steps=trial.steps,
        batch_size=BATCH_SIZE,
        learning_rate=trial.learning_rate,
        max_tokens=task.bundle.manifest.max_tokens,
        pruning_decay=1.0,
        pruning_penalty=0.0,
        upload_precision=variant.precision,
    )
    setting = Setting(task.bundle, task.clients, training, RUN_RANK, trial.cohort, seed, variant.feeds_back)
    up_bytes, scores = [], []
    for made in islice(rounds(setting, rule, train), trial.rounds):
        up_bytes.append(made.up_bytes)
        scores.append(task.score(whole(open_rule(rule, made.state).distribute(RUN_RANK))))
    return Outcome(up_bytes, scores)


def rows_of(outcomes: Mapping[str, Sequence[Outcome]], cohort: int) -> list[PrecisionRow]:
    """A row for each variant, in the order given; shares are of the first."""
    rows: list[PrecisionRow] = []
    for name, runs in outcomes.items():
        scores = [_late_score(run.scores) for run in runs]
        update_bytes = fmean(sent for run in runs for sent in run.up_bytes) / cohort
        rows.append(
            PrecisionRow(
                name,
                round(update_bytes, 1),
                round(update_bytes / rows[0].update_bytes, 4) if rows else 1.0,
                round(fmean(scores), 4),
                round(stdev(scores), 4) if len(scores) > 1 else 0.0,
                [round(score, 4) for score in scores],
            )
        )
    return rows


def _late_score(scores: Sequence[float]) -> float:
    """The mean over the last fifth: from one round to the next scores go up and down."""
    return fmean(scores[-max(1, round(LATE_SHARE * len(scores))) :])
