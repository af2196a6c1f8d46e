"""The clients' steps beside Python's: one row a client, refused where it did other work."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from rich.table import Table

from benchmarks.clients.processes import Client, Steps
from benchmarks.clients.training import Training
from benchmarks.harness import median_ratio
from hetlora.errors import DependencyMissing, HetloraError, SettingsError

# Of each step's loss, relative to Python's. All compute in float32, with sums in another order; it is
# several times what was seen.
LOSS_TOLERANCE: Final = 2e-5
# What a row without figures begins with, by the error; any other failed.
_KINDS: Final = {DependencyMissing: "missing", SettingsError: "not run"}


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One client; without figures where `words` say why.

    `seconds` is the median of the counted steps of all its processes, `quartile_seconds` the first and third
    quartile of the same; `ratio` its seconds over Python's, the median over starts; `loss_difference` the
    largest of any step from Python's, relative.
    """

    model: str
    rank: int
    shape: str
    threads: int
    client: str
    seconds: float | None = None
    quartile_seconds: tuple[float, float] | None = None
    ratio: float | None = None
    loss_difference: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a client's processes: their steps, or why there are none."""

    runs: Sequence[Steps]
    words: str = ""


def run_in_turn(
    clients: Mapping[str, Client],
    case: Path,
    threads: int,
    *,
    starts: int,
    tell: Callable[[str], None],
) -> dict[str, Outcome]:
    """Start every client so often, all in turn, so that a drift of the machine's speed meets all alike.

    Raises:
        HetloraError: the first of them failed, which the others are compared with.
    """
    first, runs, words = next(iter(clients)), {name: list[Steps]() for name in clients}, dict[str, str]()
    for _ in range(starts):
        for name, client in clients.items():
            if name in words:
                continue
            tell(f"{name}, {threads} threads")
            try:
                runs[name].append(client(case, threads))
            except HetloraError as error:
                if name == first:
                    raise
                words[name] = f"{_KINDS.get(type(error), 'failed')}: {error}"
    return {name: Outcome([] if name in words else runs[name], words.get(name, "")) for name in clients}


def client_rows(
    model: str, training: Training, threads: int, outcomes: Mapping[str, Outcome], warm_up: int
) -> Iterator[ClientRow]:
    """One row a client; the first is what the others are compared with."""
    reference = next(iter(outcomes.values())).runs
    for name, outcome in outcomes.items():
        row = (model, training.rank, str(training.shape), threads, name)
        if outcome.words:
            yield ClientRow(*row, words=outcome.words)
        elif refused := refusal(outcome.runs, reference):
            yield ClientRow(*row, words=refused)
        else:
            yield ClientRow(*row, *_figures(outcome.runs, reference, warm_up))


def refusal(runs: Sequence[Steps], reference: Sequence[Steps]) -> str:
    """Why a client's steps are not those of the reference; empty where they are."""
    for mine, theirs in zip(runs, reference, strict=True):
        for step, (loss, wanted) in enumerate(zip_longest(mine.losses, theirs.losses), start=1):
            if loss is None or wanted is None:
                return f"refused: {len(mine.losses)} steps where Python took {len(theirs.losses)}"
            # Written so that a loss that is no number is refused, too.
            if not abs(loss - wanted) <= LOSS_TOLERANCE * abs(wanted):
                return f"refused: loss {loss:.6f} at step {step}, Python's is {wanted:.6f}"
    return ""


def _figures(
    runs: Sequence[Steps], reference: Sequence[Steps], warm_up: int
) -> tuple[float, tuple[float, float], float, float]:
    counted = [run.seconds[warm_up:] for run in runs]
    medians = [statistics.median(seconds) for seconds in counted]
    theirs = [statistics.median(run.seconds[warm_up:]) for run in reference]
    pooled = [second for seconds in counted for second in seconds]
    first, middle, third = statistics.quantiles(pooled, n=4) if len(pooled) > 1 else 3 * pooled
    differences = [
        abs(loss - wanted) / abs(wanted)
        for mine, other in zip(runs, reference, strict=True)
        for loss, wanted in zip(mine.losses, other.losses, strict=True)
    ]
    ratio = median_ratio(medians, theirs)
    return round(middle, 5), (round(first, 5), round(third, 5)), round(ratio, 3), max(differences)


def steps_table(rows: Sequence[ClientRow]) -> Table:
    """For people: milliseconds, and how many times Python's."""
    table = Table(title="Steps of each client", title_justify="left")
    for heading in ("model", "batch", "threads", "client"):
        table.add_column(heading)
    for heading in ("ms a step", "quartiles", "x Python's", "losses differ by"):
        table.add_column(heading, justify="right")
    for row in rows:
        head = (row.model, row.shape, str(row.threads), row.client)
        if row.seconds is None or row.quartile_seconds is None:
            table.add_row(*head, row.words)
            continue
        first, third = (1000 * second for second in row.quartile_seconds)
        ms, quartiles = f"{1000 * row.seconds:.1f}", f"{first:.1f} to {third:.1f}"
        table.add_row(*head, ms, quartiles, f"{row.ratio:.2f}", f"{row.loss_difference:.0e}")
    return table
