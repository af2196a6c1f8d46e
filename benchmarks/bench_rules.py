"""Which rule of aggregation learns most from the same bytes?"""

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
from benchmarks.options import Keep, Results, Seed, choices_of
from benchmarks.rules.contest import ENTRANTS, Contest, run_entrant
from benchmarks.rules.report import RuleRow, draw_curves, rows_of
from benchmarks.rules.trials import run_trials
from benchmarks.tasks.opening import Name
from hetlora.cli.output import JsonFlag, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

PACKAGES: Final = ("onnxruntime-training-cpu", "numpy", "scipy")


@app.command()
def bench_rules(
    data: Annotated[Path, typer.Option(help="BANKING77's folder, or for personas LoCoMo's.")],
    task: Annotated[Name, typer.Option(help="The learning problem.")] = "intents",
    rules: Annotated[str, typer.Option(help="Entrants, comma-separated; all by default.")] = ",".join(
        ENTRANTS
    ),
    seeds: Annotated[int, typer.Option(min=1, help="How many, each with its own clients and batches.")] = 3,
    megabytes: Annotated[
        float, typer.Option(min=0.1, help="Bytes down and up of all devices together.")
    ] = 150,
    clients: Annotated[int, typer.Option(min=2, help="Clients of the intents; personas are twenty.")] = 20,
    cohort: Annotated[int, typer.Option(min=1, help="Clients of one round.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Local steps of a client in a round.")] = 5,
    learning_rate: Annotated[float, typer.Option(min=0, max=10, help="AdamW's learning rate.")] = 3e-3,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one thread.")] = 2,
    keep: Keep = None,
    results: Results = RESULTS,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Train the same clients under one rule after another until the same bytes have gone down and up.

    Clients hold a few labels each and have ranks 2, 4, 8 and 16, most of them the lowest. A rule that sends
    less in a round gets more rounds. Beside each score stands the number of rounds that the bytes bought.

    Read: `rows` (mean and standard deviation over the seeds of the mean score over the last fifth of the
    bytes, and the energy of the global product beyond rank 2), and `rules-<task>.png`.

    Example: `hetlora bench rules --data ../shared/data/banking77 --seeds 1 --megabytes 20`
    """
    beginning = begin()
    names = choices_of(rules, "rules", [*ENTRANTS])
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        contest = Contest(task, data, keep or Path(scratch), clients, cohort, steps, learning_rate, megabytes)
        contest.prepare()
        every = [seed + number for number in range(seeds)]
        curves = run_trials(partial(run_entrant, contest), names, every, processes)
    rows = rows_of(curves, megabytes)
    draw_curves(curves, megabytes, results / f"rules-{task}.png")
    if not as_json:
        stdout.print(_table(rows, task))
    figures = {
        "task": task,
        **{name: value for name, value in asdict(contest).items() if name not in ("data", "work", "task")},
        "rows": [asdict(row) for row in rows],
    }
    finish("rules", figures, beginning=beginning, seed=seed, packages=PACKAGES, results=results, part=task)


def _table(rows: Sequence[RuleRow], task: str) -> Table:
    table = Table(title=f"{task}: score after the same bytes", title_justify="left")
    for heading in ("rule", "score", "deviation", "rounds", "tail energy"):
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for row in rows:
        table.add_row(
            row.rule,
            f"{row.score:.4f}",
            f"{row.deviation:.4f}",
            f"{row.rounds:.1f}",
            f"{row.tail_energy:.3f}",
        )
    return table
