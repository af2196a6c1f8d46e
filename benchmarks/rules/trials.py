"""Trainings that need nothing of each other, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from rich.progress import Progress

from hetlora.cli.output import stderr

Outcome = TypeVar("Outcome")


def run_trials(
    run: Callable[[str, int], Outcome], names: Sequence[str], seeds: Sequence[int], processes: int
) -> Mapping[str, Sequence[Outcome]]:
    """What `run` makes of each name and seed, in processes of their own: by name, seed after seed."""
    todo = [(name, seed) for seed in seeds for name in names]
    found: dict[str, list[Outcome]] = {name: [] for name in names}
    with (
        Progress(console=stderr, transient=True) as progress,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        bar = progress.add_task(f"{len(todo)} runs", total=len(todo))
        waiting = [(name, pool.submit(run, name, seed)) for name, seed in todo]
        try:
            for name, future in waiting:
                found[name].append(future.result())
                progress.advance(bar)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or all others would be run before anything is told
            raise
    return found
