"""The learning problems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from benchmarks.tasks.intents import banking, domains, scenarios
from benchmarks.tasks.task import Task
from benchmarks.tasks.turns import instructions, personas, speakers, summaries

Name = Literal["intents", "domains", "scenarios", "speakers", "personas", "instructions", "summaries"]

TASKS: Final[Mapping[Name, Callable[[Path, Path, int, int], Task]]] = {
    "intents": banking,
    "domains": domains,
    "scenarios": scenarios,
    "speakers": speakers,
    "personas": personas,
    "instructions": instructions,
    "summaries": summaries,
}


def open_task(name: Name, data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """A task over the data set in `data`; its bundle is exported into `scratch` when it is first asked for.

    Args:
        clients: of the intents, which are dealt; the others have as many as their data.

    Raises:
        DataError: the data cannot be read.
        DependencyMissing: the pretrained model of the intents is not installed.
    """
    return TASKS[name](data, scratch, clients, seed)
