"""One arm on one task with one seed: scores by round, and what they cost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np

from aggregator_service.aggregation.rules import open_rule
from benchmarks.harness import commit_now
from benchmarks.local_training import train_on
from benchmarks.quality.arms import ARMS, Arm, clients_of
from benchmarks.quality.full_fine_tuning import full_rounds, open_full
from benchmarks.rules.simulation import BATCHES, Round, Setting, cohort_of, rounds, whole
from benchmarks.tasks.opening import Name, open_task
from benchmarks.tasks.task import Task
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.private_factors import with_private_factors
from hetlora.adapter import Adapter, initial_adapter
from hetlora.errors import DataError
from hetlora.messages.device import TrainingSettings

SCORE_EVERY: Final = 5  # rounds
PENALTY: Final = 1e-3  # lambda of self-pruning; the paper's is not known, this is FlexLoRA's authors' for it


@dataclass(frozen=True, slots=True)
class Trial:
    """The learning problem, and what all arms of it have in common."""

    task: Name
    data: Path
    work: Path  # of exported bundles and finished runs
    clients: int
    cohort: int
    ranks: tuple[int, int]  # the least and the most of a client
    rounds: int
    steps: int
    batch_size: int
    learning_rate: float
    full_learning_rate: float
    central_learning_rate: float  # lower: no mean of clients evens its steps out
    score_every: int
    answers: bool  # whether what is generated is scored, too, at the end
    lost_share: float = 0.0  # of a round's updates, how many never arrive
    pruning_penalty: float = PENALTY  # of the arms that prune


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores of one run after `rounds`, with the bytes and this machine's seconds that they took.

    Bytes are those down and up of all devices together; seconds those of training and aggregation.
    """

    rounds: Sequence[int]
    scores: Sequence[float]
    megabytes: Sequence[float]
    seconds: Sequence[float]
    answers_before: float | None = None
    answers_after: float | None = None
    commit: str | None = None  # of the program that ran it: a result may hold runs that were kept


# How the state after a round is scored, the bytes that went down and up in it, and its adapter if it has one.
Reached = tuple[Callable[[], float], int, Adapter | None]


def run_arm(trial: Trial, name: str, seed: int) -> Curve:
    """Run one arm, or read how it ran before.

    Raises:
        DataError: what was kept of it cannot be read, or the task's data cannot.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    kept = kept_file(trial, name, seed)
    if kept.is_file():
        return _kept(kept)
    task = open_task(trial.task, trial.data, trial.work, trial.clients, seed)
    curve = replace(learned(trial, task, ARMS[name], seed), commit=commit_now())
    beside = kept.with_suffix(".partial")
    beside.write_text(json.dumps(asdict(curve)))
    beside.replace(kept)
    return curve


def kept_file(trial: Trial, name: str, seed: int) -> Path:
    """Where a finished run is kept, under a name that tells all that it depends on but the program."""
    return trial.work / f"{trial.task}-{name}-{seed}-{_key(trial, ARMS[name])}.json"


def _kept(path: Path) -> Curve:
    try:
        return Curve(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path.name} is no finished run", got=error, expected="a file that this benchmark kept"
        ) from error


def learned(trial: Trial, task: Task, arm: Arm, seed: int) -> Curve:
    """Run one arm on an opened task."""
    clients = clients_of(arm, task.clients, trial.ranks, seed)
    setting = Setting(
        task.bundle,
        clients,
        TrainingSettings(
            # Of all data in one place as many steps in a round as its cohort takes.
            steps=trial.steps * (trial.cohort if arm.kind == "central" else 1),
            batch_size=trial.batch_size,
            learning_rate=_rate(trial, arm),
            max_tokens=task.bundle.manifest.max_tokens,
            pruning_decay=arm.pruning_decay,
            pruning_penalty=trial.pruning_penalty if arm.pruning_decay < 1 else 0.0,
        ),
        max(client.rank for client in clients),
        min(trial.cohort, len(clients)),
        seed,
        lost_share=trial.lost_share,
    )
    if arm.kind == "local":
        return _local(trial, task, setting)
    if arm.kind == "full":
        model = open_full(task)
        reached = ((model.score, spent, None) for spent in full_rounds(setting, model))
        return _followed(trial, task, reached)
    return _followed(trial, task, _federated(task, setting, arm))


def _rate(trial: Trial, arm: Arm) -> float:
    own = {"full": trial.full_learning_rate, "central": trial.central_learning_rate}
    return own.get(arm.kind, trial.learning_rate)


def _federated(task: Task, setting: Setting, arm: Arm) -> Iterator[Reached]:
    for made in rounds(setting, arm.rule):
        moved = made.down_bytes + made.up_bytes
        if made.private:
            yield partial(_mean_score, task, _own_models(setting, arm, made)), moved, None
        else:
            shown = whole(open_rule(arm.rule, made.state).distribute(setting.run_rank))
            yield partial(task.score, shown), moved, shown


def _own_models(setting: Setting, arm: Arm, made: Round) -> list[Adapter]:
    """Those of the round's clients, where factors never leave them, as in FedSA-LoRA."""
    opened = open_rule(arm.rule, made.state)
    return [
        with_private_factors(made.private[number], whole(opened.distribute(setting.clients[number].rank)))
        for number in cohort_of(setting, made.state.round_index - 1)
        if number in made.private
    ]


def _mean_score(task: Task, adapters: Sequence[Adapter]) -> float:
    return fmean(task.score(adapter) for adapter in adapters)


def _followed(trial: Trial, task: Task, reached: Iterator[Reached]) -> Curve:
    """Follow a run for as many rounds as the trial has; what scoring takes is not counted."""
    scores, megabytes, seconds, at = [task.score(None)], [0.0], [0.0], [0]
    spent_bytes, spent_seconds = 0, 0.0
    adapter: Adapter | None = None
    for count in range(1, trial.rounds + 1):
        started = time.process_time()
        score, moved, adapter = next(reached)
        spent_seconds += time.process_time() - started
        spent_bytes += moved
        if count % trial.score_every == 0 or count == trial.rounds:
            at.append(count)
            scores.append(score())
            megabytes.append(spent_bytes / 1e6)
            seconds.append(spent_seconds)
    if task.answers is None or not trial.answers or adapter is None:
        return Curve(at, scores, megabytes, seconds)
    return Curve(at, scores, megabytes, seconds, task.answers(None), task.answers(adapter))


def _local(trial: Trial, task: Task, setting: Setting) -> Curve:
    """Clients alone, as many steps as one would take in all rounds; the mean of their own scores.

    Only one cohort of clients is trained: they are scored one by one.
    """
    share = setting.cohort / len(setting.clients)
    steps = max(1, round(trial.rounds * setting.training.steps * share))
    training = setting.training.model_copy(update={"steps": steps})
    scores, seconds = [], 0.0
    for number in cohort_of(setting, 0):
        client = setting.clients[number]
        spec = task.bundle.manifest.adapter
        initial = initial_adapter(spec, client.rank, np.random.default_rng(setting.seed))
        rng = np.random.default_rng([setting.seed, BATCHES, client.number, 0])
        started = time.process_time()
        done = train_on(client.examples, task.bundle, initial, Parametrisation(), training, rng)
        seconds += time.process_time() - started
        scores.append(task.score(done.adapter))
    return Curve([0, trial.rounds], [task.score(None), fmean(scores)], [0.0, 0.0], [0.0, seconds / share])


def _key(trial: Trial, arm: Arm) -> str:
    told = (trial.clients, trial.cohort, *trial.ranks, trial.rounds, trial.steps, trial.batch_size)
    rates = (trial.learning_rate, trial.full_learning_rate)
    name = "-".join(f"{own:g}" for own in (*told, *rates))
    # What is not as usual: finished runs keep their names.
    central = f"-central-{trial.central_learning_rate:g}" if arm.kind == "central" else ""
    losses = f"-lost-{trial.lost_share:g}" if trial.lost_share else ""
    penalty = f"-penalty-{trial.pruning_penalty:g}" if trial.pruning_penalty != PENALTY else ""
    scoring = f"-every-{trial.score_every}" if trial.score_every != SCORE_EVERY else ""
    answers = "-answers" if trial.answers else ""
    return f"{name}{central}{losses}{penalty}{scoring}{answers}"
