"""A picture of forecasts beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_errors(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The errors of memory and time of every row, before and after the trial, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(10, 4.5), layout="constrained", sharey=False)
    for axes, what, bar in zip(both, ("memory", "time"), (15, 25), strict=True):
        places = range(len(rows))
        axes.plot(places, [100 * row[f"plain_{what}_error"] for row in rows], "x", label="before the trial")
        axes.plot(places, [100 * row[f"{what}_error"] for row in rows], "o", label="after the trial")
        axes.axhspan(-bar, bar, alpha=0.1)
        axes.set_xticks(
            places, [f"{row['model']} {row['shape']} r{row['rank']}" for row in rows], rotation=90, fontsize=6
        )
        axes.set_ylabel(f"forecast of {what} over measured, % off")
        axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
