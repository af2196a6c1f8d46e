"""The answer about quality: every arm on every task, and what of the highest rank's gain the others keep."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, Final

from benchmarks.quality.arms import ARMS
from benchmarks.quality.report import REFERENCE_ARM
from benchmarks.report.answer import Answer, Bars, Figures, percent, span
from benchmarks.tasks.opening import TASKS

_TOLD: Final = {
    "hetlora_gamma_0.99": "HetLoRA with gamma 0.99",
    "reconstruction_svd": "reconstruction and SVD",
    "lora_least_rank": "the least rank for all",
    "full_fine_tuning": "full fine-tuning",
}

Row = Mapping[str, Any]


def quality(found: Figures) -> Answer:
    """Answer from the files `quality-<task>`, `quality-<task>-lost` and `quality-<task>-penalty`."""
    whole: dict[str, Mapping[str, Row]] = {
        name: {row["arm"]: row for row in found[name]["rows"]} for name in TASKS if name in found
    }
    gaining = {name: rows for name, rows in whole.items() if _gain(rows) > 0}
    shares = _shares(gaining)
    kept = [f"{told} {_span(shares[arm])}" for arm, told in _TOLD.items() if arm in shares]
    seeds = min(len(row["scores"]) for rows in whole.values() for row in rows.values())
    told = [
        f"Of what the highest rank for all gains over the untrained model, on {len(gaining)} of "
        f"{len(TASKS)} tasks, in the mean of at least {seeds} seeds: {', '.join(kept)}."
    ]
    told += [_overfitting(name, rows) for name, rows in whole.items() if _gain(rows) < 0]
    told += [_robustness(name, found[f"{name}-lost"]) for name in TASKS if f"{name}-lost" in found]
    told += [_pruning(name, found[f"{name}-penalty"]) for name in TASKS if f"{name}-penalty" in found]
    means = {arm: fmean(own) for arm, own in shares.items() if len(own) == len(gaining)}
    picture = Bars(
        [_words(arm) for arm in means],
        [100 * share for share in means.values()],
        f"% of the highest rank's gain, mean of {len(gaining)} tasks",
        100.0,
    )
    return Answer(" ".join(told), picture, _table(found, whole))


def _gain(rows: Mapping[str, Row]) -> float:
    """Of the arm that measures the others; 0 without it."""
    row = rows.get(REFERENCE_ARM)
    return row["score"] - row["untrained"] if row else 0.0


def _shares(gaining: Mapping[str, Mapping[str, Row]]) -> dict[str, list[float]]:
    """By arm, the share of the measure's gain on each task that has it."""
    shares: dict[str, list[float]] = {}
    for rows in gaining.values():
        for arm in ARMS:
            if arm in rows:
                own = (rows[arm]["score"] - rows[arm]["untrained"]) / _gain(rows)
                shares.setdefault(arm, []).append(own)
    return shares


def _overfitting(task: str, rows: Mapping[str, Row]) -> str:
    each = ", ".join(f"{told} {_cell(rows[arm])}" for arm, told in _TOLD.items() if arm in rows)
    untrained = rows[REFERENCE_ARM]["untrained"]
    return (
        f"On {task} it comes to {_cell(rows[REFERENCE_ARM])}, worse than untrained ({untrained:.3f}): {each}."
    )


def _words(arm: str) -> str:
    return arm.replace("_", " ")


def _span(shares: list[float]) -> str:
    return f"{span([100 * share for share in shares], 0)} %"


def _robustness(task: str, own: Mapping[str, Any]) -> str:
    kept = [row["gain_kept"] for row in own["rows"] if row["arm"] in _TOLD and row["gain_kept"] is not None]
    lost = percent(own["lost_share"])
    return f"With {lost} of the updates lost on {task} they keep {_span(kept)} of their gain."


def _pruning(task: str, own: Mapping[str, Any]) -> str:
    rows = [row for row in own["rows"] if row["arm"].startswith("hetlora_gamma")]
    each = ", ".join(f"{_words(row['arm'])} {_cell(row)} with {row['megabytes']:.0f} MB" for row in rows)
    return f"With a pruning penalty of {own['pruning_penalty']:g} on {task}: {each}."


def _table(found: Figures, whole: Mapping[str, Mapping[str, Row]]) -> str:
    headings = [
        f"[{name}](results/quality-{name}.md) ({found[name]['metric']}, {found[name]['rounds']} rounds)"
        for name in whole
    ]
    untrained = [f"{next(iter(rows.values()))['untrained']:.3f}" for rows in whole.values()]
    lines = [("arm", *headings), ("---",) * (len(headings) + 1), ("untrained", *untrained)]
    lines += [
        (arm, *(_cell(rows.get(arm)) for rows in whole.values()))
        for arm in ARMS
        if any(arm in rows for rows in whole.values())
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(row: Row | None) -> str:
    return "" if row is None else f"{row['score']:.3f} ± {row['deviation']:.3f}"
