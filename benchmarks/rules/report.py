"""Rows and a picture of what the entrants came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from benchmarks.rules.contest import Curve, late_score, score_at


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One entrant over all seeds: the mean score over the last fifth of the bytes, and by seed."""

    rule: str
    score: float
    deviation: float
    rounds: float
    tail_energy: float
    scores: Sequence[float]
    untrained: float


def rows_of(curves: Mapping[str, Sequence[Curve]], megabytes: float) -> list[RuleRow]:
    """A row for each entrant, the best first."""
    rows = []
    for name, runs in curves.items():
        scores = [late_score(run, megabytes) for run in runs]
        rows.append(
            RuleRow(
                name,
                round(fmean(scores), 4),
                round(stdev(scores), 4) if len(scores) > 1 else 0.0,
                fmean(run.rounds for run in runs),
                round(fmean(run.tail_energy for run in runs), 4),
                [round(score, 4) for score in scores],
                round(fmean(run.scores[0] for run in runs), 4),
            )
        )
    return sorted(rows, key=lambda row: -row.score)


def draw_curves(curves: Mapping[str, Sequence[Curve]], megabytes: float, path: Path) -> None:
    """Mean score by megabytes, one line an entrant, over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    places = np.linspace(0, megabytes, 60)
    for name, runs in curves.items():
        means = [fmean(score_at(run, float(place)) for run in runs) for place in places]
        axes.plot(places, means, label=name, linewidth=2 if name.startswith("residual") else 1)
    axes.set_xlabel("megabytes down and up, all devices")
    axes.set_ylabel("score on held-out data")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
