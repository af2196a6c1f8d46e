"""`hetlora audit`: who asked the service to write what, and what came of it."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json
from hetlora.cli.trust import CaFileOption

app = typer.Typer(no_args_is_help=True, help="The audit log: what operators asked to be written.")


SinceOption = Annotated[datetime | None, typer.Option(help="From this moment on, in UTC.")]
UntilOption = Annotated[datetime | None, typer.Option(help="Before this moment, in UTC.")]


@app.command("list")
def list_entries(
    key_id: Annotated[str | None, typer.Option("--key", help="Only of this key.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="Only about this one: a population, run, device, key or digest.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    most: Annotated[int, typer.Option(min=1, help="How many entries to list.")] = 100,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List what operators asked to be written, newest first; without a status it was cut off."""
    columns = ["entry_id", "at", "key_name", "action", "subject", "status", "source"]
    with connect(url, token, ca_file) as operator:
        entries = operator.audit(key_id=key_id, subject=subject, since=since, until=until)
        print_items(islice(entries, most), columns, as_json=as_json, title="Audit log")


@app.command()
def export(
    since: SinceOption = None,
    until: UntilOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
) -> None:
    """Print every entry as one JSON object a line, newest first, to be kept elsewhere."""
    with connect(url, token, ca_file) as operator:
        for entry in operator.audit(since=since, until=until):
            print_json(entry)
