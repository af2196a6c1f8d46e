"""How near fresh probes of one device come to each other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from sys import executable
from typing import Any

from rich.table import Table

from benchmarks.device.section import Section, Setting
from benchmarks.harness import run_measured
from benchmarks.step_shapes import Shape
from edge_sdk.probe.rates import Rates

# What a probe measures; the others of its rates are remembered, or ages.
RATES = tuple(name for name in Rates.__slots__ if name.split("_")[0] in ("matmul", "model", "memory", "disk"))


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One rate: its median over the probes, and how far the farthest of them lies from it, relative."""

    rate: str
    median_per_second: float
    largest_deviation: float


def probe_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Probe as often as is set, each time in a process of its own that remembers nothing."""
    bundle = next(iter(setting.bundles.values()))
    command = [executable, "-m", "hetlora.cli", "probe", "--json", "--fresh"]
    command += ["--bundle", str(bundle.folder), "--folder", str(setting.work)]
    found, seconds = [], []
    for number in range(setting.probes):
        setting.tell(f"probe {number + 1} of {setting.probes}")
        done = run_measured(command)
        found.append(done.last_json()["rates"])
        seconds.append(done.seconds)
    rows = probe_rows(found)
    figures = {
        "probe_deviation_max": max((row.largest_deviation for row in rows), default=None),
        "probe_seconds_max": round(max(seconds), 2),  # with the interpreter's start and all imports
        "probes": [asdict(row) for row in rows],
    }
    return Section(figures, _table(rows))


def probe_rows(found: Sequence[Mapping[str, Any]]) -> list[ProbeRow]:
    """Each rate that all the probes know."""
    rows = []
    for rate in RATES:
        values = [rates[rate] for rates in found]
        if None not in values:
            middle = statistics.median(values)
            farthest = max(abs(value / middle - 1) for value in values)
            rows.append(ProbeRow(rate, middle, round(farthest, 4)))
    return rows


def _table(rows: Sequence[ProbeRow]) -> Table:
    table = Table(title="Probes", title_justify="left")
    table.add_column("rate")
    for heading in ("median, G/s", "largest deviation"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.rate.removesuffix("_per_second").replace("_", " "),
            f"{row.median_per_second / 1e9:.2f}",
            f"{row.largest_deviation:.1%}",
        )
    return table
