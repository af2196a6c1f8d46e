"""How soon are the console's pages there, with a large fleet and a long history in the database?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from benchmarks.console.answers import Answer
from benchmarks.console.history import History
from benchmarks.console.pages import Found, measured
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results, choices_of
from benchmarks.postgresql_server import PostgresqlServer
from benchmarks.service.faults import DatabaseName
from hetlora.cli.output import JsonFlag, stderr, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

DATABASES: tuple[DatabaseName, ...] = ("sqlite", "postgresql")
BAR_MS: Final = 300.0


@app.command()
def bench_console(
    devices: Annotated[int, typer.Option(min=100, help="Devices of the population.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=30, help="Rounds of the run that goes on.")] = 1000,
    cohort: Annotated[int, typer.Option(min=1, help="Devices of each round.")] = 100,
    databases: Annotated[str, typer.Option(help="Comma-separated.")] = "sqlite,postgresql",
    times: Annotated[int, typer.Option(min=1, help="How often each page is asked for.")] = 20,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Fill a database with a fleet's history, serve it, and ask for every page as a signed-in operator.

    A page's time is that of its GET, to the last byte: what the console asks of the service, and the page
    that it makes of it. A browser then fetches scripts, once, and draws. Routes are those of the service that
    pages ask.

    Read: `pages` and `routes` (median and slowest, in milliseconds), `over_bar` (those whose slowest is above
    300 ms), `read_whole` (by route, tables of 1,000 rows or more that the database reads from end to end).

    Example: `hetlora bench console --devices 2000 --rounds 50 --databases sqlite`
    """
    beginning = begin()
    size = History(devices, rounds, cohort)
    found: dict[str, Found] = {}
    with ExitStack() as stack:
        for database in choices_of(databases, "databases", DATABASES):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hetlora-bench-")))
            url = None
            if database == "postgresql":
                url = stack.enter_context(stack.enter_context(PostgresqlServer()).empty())
            stderr.print(f"{database}: {devices} devices, {rounds} rounds of {cohort}")
            found[database] = measured(folder, size, times, url)
    if not as_json:
        for name, own in found.items():
            stdout.print(_table(f"{name}: pages", own.pages))
            stdout.print(_table(f"{name}: routes", own.routes, own.read_whole))
    figures = {**asdict(size), "times": times, **{name: _figures(own) for name, own in found.items()}}
    packages = ("fastapi", "nicegui", "sqlalchemy")
    finish("console", figures, beginning=beginning, seed=0, packages=packages, results=results)


def _figures(found: Found) -> dict[str, object]:
    slow = [own.name for own in (*found.pages, *found.routes) if own.slowest_ms > BAR_MS]
    whole = {path: tables for path, tables in found.read_whole.items() if tables}
    return {**asdict(found), "read_whole": whole, "over_bar": slow}


def _table(title: str, rows: Sequence[Answer], read_whole: dict[str, list[str]] | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("", "median ms", "slowest ms", "kB"):
        table.add_column(heading, justify="right" if heading else "left")
    if read_whole is not None:
        table.add_column("read whole")
    for own in rows:
        whole = [", ".join(read_whole.get(own.path, []))] if read_whole is not None else []
        slowest = f"{own.slowest_ms:.0f}" + (" !" if own.slowest_ms > BAR_MS else "")
        table.add_row(own.name, f"{own.median_ms:.0f}", slowest, f"{own.size_bytes / 1e3:.0f}", *whole)
    return table
