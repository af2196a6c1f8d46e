"""What every section of the benchmark is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from hetlora.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Setting:
    """The bundles by name, how each process runs, where files may be put, and whom to tell.

    `clock` is of steps: "wall", or "processor" for the time that a process had a processor. `pairs` are steps
    beside bare ones, `starts` those of killed rounds, `probes` fresh ones; `sustained_seconds` how long steps
    are taken without a pause.
    """

    bundles: Mapping[str, Bundle]
    threads: int
    steps: int
    clock: str
    seed: int
    pairs: int
    starts: int
    probes: int
    sustained_seconds: float
    work: Path
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Section:
    """Figures for the JSON object, under names that no other section has, and a table for people."""

    figures: Mapping[str, Any]
    table: Table
