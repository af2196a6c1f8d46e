"""What does secure aggregation cost a device and the service, beside a round without masks?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.harness import RESULTS, begin, finish
from benchmarks.masking.costs import MaskingRow, measured
from benchmarks.options import Results, Seed, counts_of
from hetlora.cli.output import JsonFlag, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_masking(
    cohorts: Annotated[str, typer.Option(help="Devices of a round, comma-separated.")] = "10,50,100",
    results: Results = RESULTS,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Mask and unmask the updates of MiniLM's shape, ranks 4, 16 and 32, of which a fifth never comes.

    The peer is our own HetLoRA on the same updates without masks, in memory, on one core, in the same run.

    Read: `device_seconds` (all that a device does beyond training), `service_seconds` beside
    `plain_service_seconds` (from updates to the sum), `bytes_ratio` (sent by a device of rank 4, over plain).

    Example: `hetlora bench masking --cohorts 10`
    """
    beginning = begin()
    with threadpool_limits(1):
        rows = [measured(count, seed) for count in counts_of(cohorts, "cohorts")]
    if not as_json:
        stdout.print(_table(rows))
    figures = {"rows": [{**asdict(row), "bytes_ratio": row.bytes_ratio} for row in rows]}
    packages = ("cryptography", "numpy")
    finish("masking", figures, beginning=beginning, seed=seed, packages=packages, results=results)


def _table(rows: list[MaskingRow]) -> Table:
    table = Table(title="Secure aggregation, a fifth drops out", title_justify="left")
    for heading in ("cohort", "device s", "service s", "plain s", "MB up", "of plain"):
        table.add_column(heading, justify="right")
    for row in rows:
        seconds = (
            f"{row.device_seconds:.2f}",
            f"{row.service_seconds:.2f}",
            f"{row.plain_service_seconds:.2f}",
        )
        table.add_row(
            str(row.cohort), *seconds, f"{row.device_upload_bytes / 1e6:.2f}", f"{row.bytes_ratio:.1f}"
        )
    return table
