"""A picture of what was measured, a panel for each figure that there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the rows of all sections that `figures` has, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(name, panel) for name, own in _PANELS.items() if figures.get(name) for panel in own]
    figure, all_axes = pyplot.subplots(
        1, len(panels), figsize=(5 * len(panels), 4.5), layout="constrained", squeeze=False
    )
    for axes, (name, panel) in zip(all_axes[0], panels, strict=True):
        panel(axes, figures[name])
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _errors(axes: Axes, rows: Rows, what: str, bar: float) -> None:
    places = range(len(rows))
    axes.plot(places, [100 * row[f"plain_{what}_error"] for row in rows], "x", label="before the trial")
    axes.plot(places, [100 * row[f"{what}_error"] for row in rows], "o", label="after the trial")
    axes.axhspan(-bar, bar, alpha=0.1)
    axes.set_xticks(places, list(map(_case, rows)), rotation=90, fontsize=6)
    axes.set_ylabel(f"forecast of {what} over measured, % off")
    axes.legend()


def _memory(axes: Axes, rows: Rows) -> None:
    _errors(axes, rows, "memory", 15)


def _time(axes: Axes, rows: Rows) -> None:
    _errors(axes, rows, "time", 25)


def _overhead(axes: Axes, rows: Rows) -> None:
    places = range(len(rows))
    axes.plot(places, [100 * row["overhead"] for row in rows], "o", label="by the wall's clock")
    axes.plot(places, [100 * row["processor_overhead"] for row in rows], "x", label="by the processor's")
    axes.axhline(3, linestyle="--")
    axes.set_xticks(places, list(map(_case, rows)), rotation=90, fontsize=6)
    axes.set_ylabel("overhead over a bare step, %")
    axes.legend()


def _resume(axes: Axes, rows: Rows) -> None:
    places = range(len(rows))
    axes.plot(places, [row["resume_steps"] for row in rows], "o")
    axes.axhline(1, linestyle="--")
    axes.set_xticks(places, list(map(_case, rows)), rotation=90, fontsize=6)
    axes.set_ylabel("going on after a kill, steps")


def _traffic(axes: Axes, rows: Rows) -> None:
    first = [row for row in rows if row["model"] == rows[0]["model"]]
    for precision in dict.fromkeys(row["precision"] for row in first):
        own = [row for row in first if row["precision"] == precision]
        axes.plot(
            [row["rank"] for row in own],
            [row["up_bytes"] / 1e6 for row in own],
            "o-",
            label=f"up, {precision}",
        )
    axes.set_xlabel(f"rank, {first[0]['model']}")
    axes.set_ylabel("MB a round")
    axes.legend()


def _probes(axes: Axes, rows: Rows) -> None:
    places = range(len(rows))
    axes.bar(places, [100 * row["largest_deviation"] for row in rows])
    axes.axhline(15, linestyle="--")
    axes.set_xticks(
        places, [row["rate"].removesuffix("_per_second") for row in rows], rotation=20, fontsize=6
    )
    axes.set_ylabel("largest deviation of a probe, %")


def _micro_batches(axes: Axes, rows: Rows) -> None:
    for model, own in _by_model(rows):
        axes.plot([row["memory_ratio"] for row in own], [row["time_ratio"] for row in own], "o-", label=model)
    axes.set_xlabel("peak memory over the batch in one part")
    axes.set_ylabel("time over the batch in one part")
    axes.legend()


def _rounds(axes: Axes, rows: Rows) -> None:
    for model, own in _by_model(rows):
        axes.plot([row["rank"] for row in own], [row["peak_rss_mb"] for row in own], "o-", label=model)
    axes.set_xlabel("rank")
    axes.set_ylabel("peak memory of a device in a round, MiB")
    axes.legend()


def _sustained(axes: Axes, rows: Rows) -> None:
    for row in rows:
        told = [window for window in row["windows"] if window["step_seconds"] is not None]
        first = told[0]["step_seconds"]
        axes.plot(
            [window["end_seconds"] for window in told],
            [100 * (window["step_seconds"] / first - 1) for window in told],
            label=row["model"],
        )
    axes.set_xlabel("seconds of steps without a pause")
    axes.set_ylabel("a step over the first ones, % longer")
    axes.legend()


def _by_model(rows: Rows) -> list[tuple[str, Rows]]:
    models = dict.fromkeys(row["model"] for row in rows)
    return [(model, [row for row in rows if row["model"] == model]) for model in models]


def _case(row: Mapping[str, Any]) -> str:
    return f"{row['model']} {row['shape']} r{row['rank']}"


# By the name of the rows in the figures.
_PANELS: Final[Mapping[str, Sequence[Callable[[Axes, Rows], None]]]] = {
    "rows": (_memory, _time),
    "micro_batches": (_micro_batches,),
    "overhead": (_overhead,),
    "resume": (_resume,),
    "traffic": (_traffic,),
    "probes": (_probes,),
    "rounds": (_rounds,),
    "sustained": (_sustained,),
}
