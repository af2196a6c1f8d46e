"""Does one round after another of unequal devices improve a real model, and over which baseline?"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.demo.stage import DemoSettings, run_demo
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results
from hetlora.cli.output import JsonFlag, stderr, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

PACKAGES = ("onnxruntime-training-cpu", "numpy", "tokenizers", "fastapi", "uvicorn", "sqlalchemy")


@app.command()
def bench_demo(
    seeds: Annotated[
        str, typer.Option(help="Seeds of split, adapters and batches, comma-separated.")
    ] = "0,1,2",
    data: Annotated[
        Path | None, typer.Option(help="Labelled text instead of the standard library's.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each of the two runs.")] = 10,
    devices: Annotated[int, typer.Option(min=2, max=64, help="How many device processes.")] = 8,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Run `hetlora demo` once a seed and put its accuracies side by side.

    Ends with one JSON object on the last line: `rows`, one a seed, and the mean of each arm.
    """
    beginning = begin()
    chosen = [int(seed) for seed in seeds.split(",")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as folder, stderr.status("") as status:
        for seed in chosen:
            status.update(f"Running the demo with seed {seed}")
            settings = DemoSettings(data, Path(folder) / str(seed), rounds, devices, seed)
            rows.append(run_demo(settings, quiet=True))
    if not as_json:
        stdout.print(_table(rows))
    arms = ("untrained_accuracy", "final_accuracy", "smallest_rank_accuracy")
    means = {arm: statistics.mean(row[arm] for row in rows) for arm in arms}
    finish(
        "demo",
        {"seeds": chosen, "means": means, "rows": rows},
        beginning=beginning,
        seed=chosen[0],
        packages=PACKAGES,
        results=results,
    )


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Held-out accuracy by seed", title_justify="left")
    for heading in (
        "seed",
        "untrained",
        "every device at rank 4",
        "each at its own rank",
        "PyTorch",
        "seconds",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["seed"]),
            f"{row['untrained_accuracy']:.1%}",
            f"{row['smallest_rank_accuracy']:.1%}",
            f"{row['final_accuracy']:.1%}",
            f"{row['pytorch_accuracy']:.1%}",
            f"{row['seconds']:.0f}",
        )
    return table
