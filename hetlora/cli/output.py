"""How commands speak: tables for people, one JSON object for machines, errors without tracebacks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hetlora.errors import HetloraError
from hetlora.messages.common import problem_of

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
MostOption = Annotated[int, typer.Option(min=1, help="How many to list.")]

# A file or a pipe has no width to keep to.
PIPE_COLUMNS: Final = 1000

if sys.stdout is None:  # closed by whoever started the command
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives

stdout = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
stderr = Console(stderr=True, highlight=False, markup=False)


def print_json(value: BaseModel | Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    try:
        sys.stdout.write(json.dumps(plain, default=str) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        # What is still in the buffer would fail once more at the end, with an exit code of the interpreter's.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise HetloraError("standard output cannot be written", got=error) from error


def print_items(items: Iterable[BaseModel], columns: Sequence[str], *, as_json: bool, title: str) -> None:
    """Print a listing: a table of the named fields, or `{"items": [...]}`."""
    rows = [item.model_dump(mode="json") for item in items]
    if as_json:
        print_json({"items": rows})
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        # The first names the item, and is what other commands ask for: never cut.
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        table.add_row(*(plain(row[column]) for column in columns))
    stdout.print(table)


def plain(value: object) -> Text:
    """A value as a cell or line: what devices and services say must neither style a terminal nor steer it."""
    text = "" if value is None else str(value)
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))


def say(*lines: str) -> None:
    """Print lines as they are, unwrapped: people read them, and scripts cut them."""
    for line in lines:
        typer.echo(plain(line).plain)


def print_error(error: HetloraError, *, as_json: bool) -> None:
    """Say on standard error what went wrong, with its stable code."""
    if as_json:
        sys.stderr.write(problem_of(error).model_dump_json() + "\n")
        return
    stderr.print(
        Text.assemble(("error ", "bold red"), (f"{error.code}: ", "bold"), plain(error)), soft_wrap=True
    )
