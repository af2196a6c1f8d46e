"""Which data sets do the benchmarks read, where are they from, and which are here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.data.sources import SOURCES
from hetlora.cli.output import JsonFlag, print_json, stdout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_data(
    folder: Annotated[
        Path | None, typer.Option(help="A folder of data sets, each in one of its own of the name told.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell of each data set its public home, its licence, and what is missing of it in a folder.

    Nothing is fetched: licences are yours to accept. Clone the repository, check out the commit, and copy the
    files into the folder of the name told. `natural_instructions_40` is a choice of 40 clients; with another
    choice the task has as many clients. `locomo` is a zip file there, whose members are copied.

    Example: `hetlora bench data --folder ../shared/data`
    """
    rows = [
        {
            "name": source.name,
            "task": source.task,
            "home": source.home,
            "files": list(source.files),
            "licence": source.licence,
            "missing": None if folder is None else source.missing(folder),
        }
        for source in SOURCES
    ]
    if as_json:
        print_json({"data_sets": rows})
        return
    table = Table(title="Data sets", title_justify="left")
    for heading in ("data set", "task", "licence", "home", "files", "missing"):
        table.add_column(heading, overflow="fold")
    for source, row in zip(SOURCES, rows, strict=True):
        missing = row["missing"]
        told = "" if missing is None else ", ".join(map(str, missing)) or "nothing"
        table.add_row(source.name, source.task, source.licence, source.home, ", ".join(source.files), told)
    stdout.print(table)
