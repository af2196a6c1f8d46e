"""A table and a picture of what the arms came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np

from benchmarks.quality.trial import Curve

# Of what homogeneous LoRA at the highest rank gains over the untrained model.
TARGET_SHARE: Final = 0.9
REFERENCE_ARM: Final = "lora_most_rank"
# Of what that arm moves and takes in all rounds: what the others may.
BUDGET_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm over all seeds, by EdgeFlowerTune's three protocols (arXiv 2605.08636).

    Cost to target: None where a seed did not reach it. Quality under budget: the score when it is spent.
    Robustness: the score where updates are lost, and how much of the gain is left; None where none were.
    """

    arm: str
    score: float
    deviation: float
    megabytes: float
    rounds_to_target: float | None
    megabytes_to_target: float | None
    seconds_to_target: float | None
    score_in_megabytes: float | None
    score_in_seconds: float | None
    score_with_losses: float | None
    gain_kept: float | None
    scores: Sequence[float]
    untrained: float
    answers_before: float | None
    answers_after: float | None


def target_of(curves: Mapping[str, Sequence[Curve]]) -> float | None:
    """The score that arms are to reach: a share of what REFERENCE_ARM gains; None where it gains nothing."""
    runs = curves.get(REFERENCE_ARM)
    if not runs:
        return None
    begun, ended = fmean(run.scores[0] for run in runs), fmean(run.scores[-1] for run in runs)
    return begun + TARGET_SHARE * (ended - begun) if ended > begun else None


def budget_of(curves: Mapping[str, Sequence[Curve]]) -> tuple[float, float] | None:
    """Megabytes and seconds that arms may spend: a share of REFERENCE_ARM's; None without that."""
    runs = curves.get(REFERENCE_ARM)
    if not runs:
        return None
    return (
        BUDGET_SHARE * fmean(run.megabytes[-1] for run in runs),
        BUDGET_SHARE * fmean(run.seconds[-1] for run in runs),
    )


def rows_of(
    curves: Mapping[str, Sequence[Curve]], with_losses: Mapping[str, Sequence[Curve]] | None = None
) -> list[ArmRow]:
    """A row for each arm, the best first."""
    target, budget, lossy = target_of(curves), budget_of(curves), with_losses or {}
    rows = []
    for name, runs in curves.items():
        last = [run.scores[-1] for run in runs]
        reached = [None if target is None else _reached(run, target) for run in runs]
        rows.append(
            ArmRow(
                name,
                round(fmean(last), 4),
                round(stdev(last), 4) if len(last) > 1 else 0.0,
                round(fmean(run.megabytes[-1] for run in runs), 1),
                *_means(reached),
                *_within(runs, budget),
                *_robustness(runs, lossy.get(name, ())),
                [round(score, 4) for score in last],
                round(fmean(run.scores[0] for run in runs), 4),
                _mean([run.answers_before for run in runs]),
                _mean([run.answers_after for run in runs]),
            )
        )
    return sorted(rows, key=lambda row: -row.score)


def _reached(run: Curve, target: float) -> tuple[float, float, float] | None:
    """Rounds, megabytes and seconds of the first score that is no worse than the target."""
    every = zip(run.scores, run.rounds, run.megabytes, run.seconds, strict=True)
    return next((cost for score, *cost in every if score >= target), None)  # type: ignore[return-value]


def _within(runs: Sequence[Curve], budget: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """The mean score at the budget of megabytes and of seconds, on straight lines between scores."""
    if budget is None:
        return None, None
    megabytes, seconds = budget
    return (
        round(fmean(float(np.interp(megabytes, run.megabytes, run.scores)) for run in runs), 4),
        round(fmean(float(np.interp(seconds, run.seconds, run.scores)) for run in runs), 4),
    )


def _robustness(runs: Sequence[Curve], lossy: Sequence[Curve]) -> tuple[float | None, float | None]:
    """The score with losses, and the share of the gain that is left; None where there was no gain."""
    if not lossy:
        return None, None
    begun, ended = fmean(run.scores[0] for run in runs), fmean(run.scores[-1] for run in runs)
    left = fmean(run.scores[-1] for run in lossy)
    return round(left, 4), round((left - begun) / (ended - begun), 3) if ended > begun else None


def _means(
    reached: Sequence[tuple[float, float, float] | None],
) -> tuple[float | None, float | None, float | None]:
    rounds, megabytes, seconds = (
        _mean([None if own is None else own[place] for own in reached]) for place in range(3)
    )
    return rounds, megabytes, seconds


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 4) if known and len(known) == len(values) else None


def markdown_of(rows: Sequence[ArmRow], metric: str) -> str:
    """The rows as a table of Markdown."""
    headings = (
        "arm",
        metric,
        "±",
        "MB",
        "rounds to target",
        "MB to target",
        "s to target",
        "in the MB of the budget",
        "in its seconds",
        "with losses",
        "gain kept",
    )
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row in rows:
        cells = (
            row.arm,
            f"{row.score:.4f}",
            f"{row.deviation:.4f}",
            f"{row.megabytes:.0f}",
            *map(_told, (row.rounds_to_target, row.megabytes_to_target, row.seconds_to_target)),
            *(
                "" if value is None else f"{value:.4f}"
                for value in (row.score_in_megabytes, row.score_in_seconds, row.score_with_losses)
            ),
            "" if row.gain_kept is None else f"{row.gain_kept:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def figures_of(
    curves: Mapping[str, Sequence[Curve]], with_losses: Mapping[str, Sequence[Curve]] | None = None
) -> dict[str, Any]:
    """Everything as plain JSON values."""
    megabytes, seconds = budget_of(curves) or (None, None)
    return {
        "target": target_of(curves),
        "budget_megabytes": megabytes,
        "budget_seconds": seconds,
        "rows": [asdict(row) for row in rows_of(curves, with_losses)],
        "curves": _plain(curves),
        "curves_with_losses": _plain(with_losses or {}),
    }


def _plain(curves: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    return {name: [asdict(run) for run in runs] for name, runs in curves.items()}


def draw(curves: Mapping[str, Sequence[Curve]], metric: str, path: Path) -> None:
    """Mean score by round, and by megabytes, one line an arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (by_round, by_bytes) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for number, (name, runs) in enumerate(curves.items()):
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        means = [fmean(scores) for scores in zip(*(run.scores for run in runs), strict=True)]
        by_round.plot(runs[0].rounds, means, style, label=name, linewidth=1)
        sent = [fmean(sizes) for sizes in zip(*(run.megabytes for run in runs), strict=True)]
        by_bytes.plot(sent, means, style, linewidth=1)
    by_round.set_xlabel("rounds")
    by_round.set_ylabel(metric)
    by_round.legend(fontsize=6)
    by_bytes.set_xlabel("megabytes down and up, all devices")
    by_bytes.set_xscale("symlog")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
