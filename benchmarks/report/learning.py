"""Answers about what is learnt: the demo, the rules, the paper's evaluation, precisions, whole campaigns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.report.answer import Answer, AnswerOf, Bars, Figures, percent
from benchmarks.report.quality import quality


def demo(found: Figures) -> Answer:
    means, rows = found[""]["means"], found[""]["rows"]
    mixed = rows[0]["runs"][0]
    return Answer(
        f"{len(mixed['accuracies']) - 1} rounds of unequal devices take a MiniLM from "
        f"{percent(means['untrained_accuracy'], 1)} to {percent(means['final_accuracy'], 1)} of "
        f"{rows[0]['held_out']} held-out passages, {percent(means['smallest_rank_accuracy'], 1)} with every "
        f"device at rank {min(mixed['ranks'])}, in the mean of {len(rows)} seeds.",
        Bars(
            ["untrained", f"every device at rank {min(mixed['ranks'])}", "each at its own rank"],
            [
                100 * means[name]
                for name in ("untrained_accuracy", "smallest_rank_accuracy", "final_accuracy")
            ],
            "accuracy, %",
        ),
    )


def rules(found: Figures) -> Answer:
    told = []
    for part, own in found.items():
        best, hetlora = own["rows"][0], next(row for row in own["rows"] if row["rule"] == "hetlora")
        told.append(
            f"on {part} {best['rule']} comes to {best['score']:.3f} ± {best['deviation']:.3f} and hetlora to "
            f"{hetlora['score']:.3f} ± {hetlora['deviation']:.3f} (untrained {best['untrained']:.3f})"
        )
    return Answer(f"With the same megabytes for all: {'; '.join(told)}.", f"rules-{next(iter(found))}.png")


def precision(found: Figures) -> Answer:
    own = found["intents"]
    rows: dict[str, Mapping[str, Any]] = {row["variant"]: row for row in own["rows"]}
    least = min(rows.values(), key=lambda row: row["share"])
    return Answer(
        f"Updates in {least['variant'].replace('_', ' ')} take {percent(least['share'])} of float32's bytes "
        "and come to "
        f"{percent(least['score'], 1)} where float32 comes to {percent(rows['float32']['score'], 1)}.",
        Bars(
            [name.replace("_", " ") for name in rows],
            [100 * row["score"] for row in rows.values()],
            "accuracy, %",
        ),
    )


def simulation(found: Figures) -> Answer:
    own = found[""]
    outcome, learnt = own["outcome"], ""
    if "learning" in found:
        real = found["learning"]
        scores = [*real["outcome"]["scores"].values()]
        learnt = (
            f" With real training {real['devices']:,} devices took {real['seconds'] / 60:.1f} minutes for "
            f"{real['outcome']['rounds_committed']} rounds, and their score went from {scores[0]:.3f} to "
            f"{scores[-1]:.3f}."
        )
    kinds = ", ".join(
        f"{kind['name']}s {percent(kind['accepted'] / kind['devices'], 1)} of theirs"
        for kind in outcome["kinds"]
    )
    return Answer(
        f"{own['devices']:,} virtual devices and {outcome['rounds_committed']} rounds with the service's "
        "own code take "
        f"{own['seconds'] / 60:.1f} minutes and "
        f"{own['peak_rss_bytes'] / 1e9:.1f} GB: the "
        f"campaign itself {outcome['hours']:.2f} hours, {outcome['check_ins']:,} check-ins, "
        f"{outcome['downloaded_bytes'] / 1e9:.0f} GB "
        f"down and {outcome['uploaded_bytes'] / 1e9:.1f} GB up. Of the devices had an update merged: "
        f"{kinds}.{learnt}",
        "simulation.png",
    )


ANSWERS: Final[Mapping[str, AnswerOf]] = {
    "quality": quality,
    "rules": rules,
    "demo": demo,
    "precision": precision,
    "simulation": simulation,
}
