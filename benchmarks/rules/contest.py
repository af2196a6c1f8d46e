"""What every entrant has in common, the entrants, and one run of one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aggregator_service.aggregation.products import ProductStack
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, stacked
from benchmarks.rules.simulation import Setting, rounds, whole
from benchmarks.tasks.opening import Name, open_task
from hetlora.messages.device import TrainingSettings
from hetlora.messages.rules import (
    AnyRule,
    FlexLoraRule,
    HetLoraRule,
    LoraA2Rule,
    RaFloraRule,
    RblaRule,
    ResidualExactRule,
    ZeroPadRule,
)

RUN_RANK: Final = 16
BATCH_SIZE: Final = 8
SCORE_EVERY: Final = 2
LATE_SHARE: Final = 0.2

ENTRANTS: Final[dict[str, AnyRule]] = {
    "hetlora": HetLoraRule(),
    "zero_pad": ZeroPadRule(),
    "rbla": RblaRule(),
    "flexlora": FlexLoraRule(),
    "raflora": RaFloraRule(),
    "lora_a2": LoraA2Rule(),
    "residual_exact": ResidualExactRule(),
    "residual_exact_allocated": ResidualExactRule(allocate=True),
    "residual_exact_1.5": ResidualExactRule(server_rate=1.5),
    "residual_exact_allocated_1.5": ResidualExactRule(server_rate=1.5, allocate=True),
}


@dataclass(frozen=True, slots=True)
class Contest:
    """The learning problem and its size; finished runs are kept in `work`."""

    task: Name
    data: Path
    work: Path
    clients: int
    cohort: int
    steps: int
    learning_rate: float
    megabytes: float

    def prepare(self) -> None:
        """Export the task's bundle, which all runs share."""
        open_task(self.task, self.data, self.work, self.clients, seed=0)


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores of one run by megabytes, the untrained model's first; and what the last state is like."""

    megabytes: Sequence[float]
    scores: Sequence[float]
    rounds: int
    tail_energy: float


def run_entrant(contest: Contest, name: str, seed: int) -> Curve:
    """Run one entrant until the bytes are spent, or read how it ran before."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    kept = contest.work / f"{contest.task}-{name}-{seed}-{_key(contest)}.json"
    if kept.is_file():
        return Curve(**json.loads(kept.read_text()))
    rule = ENTRANTS[name]
    task = open_task(contest.task, contest.data, contest.work, contest.clients, seed)
    prunes = isinstance(rule, HetLoraRule)
    training = TrainingSettings(
        steps=contest.steps,
        batch_size=BATCH_SIZE,
        learning_rate=contest.learning_rate,
        max_tokens=task.bundle.manifest.max_tokens,
        pruning_decay=0.99 if prunes else 1.0,
        pruning_penalty=1e-3 if prunes else 0.0,
    )
    setting = Setting(task.bundle, task.clients, training, RUN_RANK, contest.cohort, seed)
    sent, scores, spent, count, last = [0.0], [task.score(None)], 0.0, 0, None
    for made in rounds(setting, rule):
        spent += (made.down_bytes + made.up_bytes) / 1e6
        count += 1
        over = spent >= contest.megabytes
        if over or count % SCORE_EVERY == 0:
            last = whole(open_rule(rule, made.state).distribute(RUN_RANK))
            sent.append(spent)
            scores.append(task.score(last))
        if over:
            break
    assert last is not None
    curve = Curve(sent, scores, count, tail_energy(stacked(last), 2))
    kept.write_text(json.dumps(asdict(curve)))
    return curve


def tail_energy(adapter: StackedAdapter, rank: int) -> float:
    """Share of the energy of B A beyond its leading singular values, over all modules."""
    spectra = [one for group in ProductStack([(adapter, 1.0)]).spectra(adapter.rank) for one in group]
    squares = [one.values**2 for one in spectra]
    return float(sum(own[rank:].sum() for own in squares) / max(sum(own.sum() for own in squares), 1e-300))


def _key(contest: Contest) -> str:
    sizes = (contest.clients, contest.cohort, contest.steps, contest.learning_rate, contest.megabytes)
    return "-".join(f"{size:g}" for size in sizes)


def late_score(curve: Curve, megabytes: float) -> float:
    """The mean score over the last fifth of the bytes: from one round to the next scores go up and down."""
    places = np.linspace((1 - LATE_SHARE) * megabytes, megabytes, 21)
    return float(np.interp(places, curve.megabytes, curve.scores).mean())


def score_at(curve: Curve, megabytes: float) -> float:
    """The score after so many megabytes, on a straight line between the two scores around."""
    return float(np.interp(megabytes, curve.megabytes, curve.scores))
