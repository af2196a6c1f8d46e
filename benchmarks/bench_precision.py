"""What do updates in fewer bytes cost in accuracy?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results, Seed, choices_of
from benchmarks.rules.contest import ENTRANTS
from benchmarks.rules.precision import VARIANTS, PrecisionRow, Trial, rows_of, run_variant
from benchmarks.rules.trials import run_trials
from benchmarks.tasks.opening import Name
from hetlora.cli.output import JsonFlag, stdout
from hetlora.errors import SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

PACKAGES: Final = ("onnxruntime-training-cpu", "numpy")


@app.command()
def bench_precision(
    data: Annotated[Path, typer.Option(help="BANKING77's folder, or for personas LoCoMo's.")],
    task: Annotated[Name, typer.Option(help="The learning problem.")] = "intents",
    rule: Annotated[str, typer.Option(help=f"How updates become one: {', '.join(ENTRANTS)}.")] = "hetlora",
    variants: Annotated[str, typer.Option(help="Variants, comma-separated; all by default.")] = ",".join(
        VARIANTS
    ),
    seeds: Annotated[int, typer.Option(min=1, help="How many, each with its own clients and batches.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of a run.")] = 20,
    clients: Annotated[int, typer.Option(min=2, help="Clients of the intents; personas are twenty.")] = 20,
    cohort: Annotated[int, typer.Option(min=1, help="Clients of one round.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Local steps of a client in a round.")] = 5,
    learning_rate: Annotated[float, typer.Option(min=0, max=10, help="AdamW's learning rate.")] = 3e-3,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one thread.")] = 2,
    results: Results = RESULTS,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Train the same clients for the same rounds, with updates in float32, float16 and int8.

    Each of the lower precisions runs with error feedback and without. Clients, cohorts, batches and the first
    adapter are those of the seed, whatever the variant.

    Read: `rows` (bytes of one update, its share of float32's, and mean and standard deviation over the seeds
    of the mean score over the last fifth of the rounds).

    Example: `hetlora bench precision --data ../shared/data/banking77 --seeds 1 --rounds 10`
    """
    beginning = begin()
    names = choices_of(variants, "variants", [*VARIANTS])
    if rule not in ENTRANTS:
        raise SettingsError("--rule", got=rule, expected=f"one of {[*ENTRANTS]}")
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        trial = Trial(task, data, Path(scratch), rule, clients, cohort, rounds, steps, learning_rate)
        trial.opened(seed=0)  # exports the bundle, which all runs share
        every = [seed + number for number in range(seeds)]
        outcomes = run_trials(partial(run_variant, trial), names, every, processes)
    rows = rows_of(outcomes, cohort)
    if not as_json:
        stdout.print(_table(rows, task))
    figures = {
        "task": task,
        **{name: value for name, value in asdict(trial).items() if name not in ("data", "work", "task")},
        "rows": [asdict(row) for row in rows],
    }
    finish(
        "precision", figures, beginning=beginning, seed=seed, packages=PACKAGES, results=results, part=task
    )


def _table(rows: Sequence[PrecisionRow], task: str) -> Table:
    table = Table(title=f"{task}: score after the same rounds", title_justify="left")
    for heading in ("updates", "bytes of one", "share", "score", "deviation"):
        table.add_column(heading, justify="left" if heading == "updates" else "right")
    for row in rows:
        table.add_row(
            row.variant,
            f"{row.update_bytes:.0f}",
            f"{row.share:.3f}",
            f"{row.score:.4f}",
            f"{row.deviation:.4f}",
        )
    return table
