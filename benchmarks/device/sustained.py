"""Whether steps become slower as the device grows hot, and what energy they take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from benchmarks.device.process import batch_in_words, run_process, step_plan
from benchmarks.device.sampling import mean
from benchmarks.device.section import Section, Setting
from benchmarks.step_shapes import Shape

WINDOWS: Final = 10


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the time: its end, its steps, and means of what the sensors told; None where none did."""

    end_seconds: float
    steps: int
    step_seconds: float | None  # the median
    celsius: float | None
    watts: float | None
    clock_hz: float | None
    throttled_share: float | None


@dataclass(frozen=True, slots=True)
class SustainedRow:
    """One bundle at the last rank and batch; `drift` is the last window's step over the first's, less one.

    Energy is that of the whole device where a sensor tells it, else the processor's, by RAPL.
    """

    model: str
    rank: int
    shape: str
    seconds: float
    steps: int
    drift: float | None
    celsius_first: float | None
    celsius_last: float | None
    watts: float | None
    joules_per_step: float | None
    windows: Sequence[Window]


def sustained_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Train on each bundle for `sustained_seconds`, one after another."""
    rows = []
    for name, bundle in setting.bundles.items():
        setting.tell(f"{name}: {setting.sustained_seconds:.0f} s of steps")
        shape, rank = shapes[-1], ranks[-1]
        step = asdict(step_plan(bundle, shape, rank))
        told = run_process(
            "sustained", bundle, rank, shape, setting, steps=1, step=step, seconds=setting.sustained_seconds
        )
        rows.append(sustained_row(name, rank, batch_in_words(bundle, shape), told))
    drifts = [row.drift for row in rows if row.drift is not None]
    figures = {"drift_max": max(drifts, default=None), "sustained": [asdict(row) for row in rows]}
    return Section(figures, _table(rows))


def sustained_row(model: str, rank: int, shape: str, told: Mapping[str, Any]) -> SustainedRow:
    """What a process told, in windows of equal length."""
    steps: Sequence[Sequence[float]] = told["steps"]
    seconds = steps[-1][0]
    ends = [seconds * (number + 1) / WINDOWS for number in range(WINDOWS)]
    windows = [
        _window(begin, end, steps, told["samples"])
        for begin, end in zip([0.0, *ends[:-1]], ends, strict=True)
    ]
    measured = [window.step_seconds for window in windows if window.step_seconds is not None]
    watts, per_step = told["watts"], statistics.median(taken for _, taken in steps)
    return SustainedRow(
        model,
        rank,
        shape,
        round(seconds, 1),
        len(steps),
        round(measured[-1] / measured[0] - 1, 4) if len(measured) > 1 else None,
        windows[0].celsius,
        windows[-1].celsius,
        None if watts is None else round(watts, 2),
        None if watts is None else round(watts * per_step, 3),
        windows,
    )


def _window(
    begin: float, end: float, steps: Sequence[Sequence[float]], samples: Sequence[Mapping[str, Any]]
) -> Window:
    taken = [seconds for at, seconds in steps if begin < at <= end]
    looks = [sample for sample in samples if begin <= sample["at"] <= end]

    def told(name: str) -> float | None:
        values = [sample[name] for sample in looks if sample[name] is not None]
        return round(mean(values), 3) if values else None

    return Window(
        round(end, 2),
        len(taken),
        round(statistics.median(taken), 5) if taken else None,
        told("celsius"),
        told("watts"),
        told("clock_hz"),
        told("is_throttled"),
    )


def _table(rows: Sequence[SustainedRow]) -> Table:
    table = Table(title="Steps without a pause", title_justify="left")
    table.add_column("model")
    for heading in ("rank", "batch", "seconds", "steps", "drift", "first °C", "last °C", "W", "J a step"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            str(row.rank),
            row.shape,
            f"{row.seconds:.0f}",
            str(row.steps),
            "" if row.drift is None else f"{row.drift:+.1%}",
            *(
                "" if value is None else f"{value:.1f}"
                for value in (row.celsius_first, row.celsius_last, row.watts, row.joules_per_step)
            ),
        )
    return table
