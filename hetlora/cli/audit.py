"""`hetlora audit`: who asked the service to write what, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, MostOption, print_items, print_json, say
from hetlora.cli.progress import work
from hetlora.cli.trust import CaFileOption
from hetlora.cli.whole_file import check_new, new_file
from hetlora.messages.operators import AuditEntry

app = typer.Typer(no_args_is_help=True, help="The audit log: what operators asked to be written.")

KeyOption = Annotated[str | None, typer.Option("--key", help="Only of the key with this id.")]
SubjectOption = Annotated[
    str | None, typer.Option(help="Only about this one: a population, run, device, key or digest.")
]
SinceOption = Annotated[datetime | None, typer.Option(help="From this moment on, in UTC.")]
UntilOption = Annotated[datetime | None, typer.Option(help="Before this moment, in UTC.")]


@app.command("list")
def list_entries(
    key_id: KeyOption = None,
    subject: SubjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    most: MostOption = 100,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List what operators asked to be written, newest first; without a status it was cut off.

    Example: `hetlora audit list --subject RUN --since 2026-12-01`
    """
    columns = ["entry_id", "at", "key_name", "action", "subject", "status", "source"]
    with connect(url, token, ca_file) as operator:
        entries = operator.audit(key_id=key_id, subject=subject, since=since, until=until)
        print_items(islice(entries, most), columns, as_json=as_json, title="Audit log")


@app.command()
def export(
    out: Annotated[
        Path | None, typer.Option(help="The file to write, which must not exist yet; else it is printed.")
    ] = None,
    key_id: KeyOption = None,
    subject: SubjectOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write every entry as one JSON object a line, newest first, to be kept elsewhere.

    Example: `hetlora audit export --until 2026-12-01 --out audit.jsonl`
    """
    if out is not None:
        check_new(out)
    with connect(url, token, ca_file) as operator:
        entries = operator.audit(key_id=key_id, subject=subject, since=since, until=until)
        if out is None:
            for entry in entries:
                print_json(entry)
            return
        count = _write(out, entries, as_json)
    if as_json:
        print_json({"file": str(out), "entries": count})
    else:
        say(f"{out}: {count} entries")


def _write(out: Path, entries: Iterable[AuditEntry], as_json: bool) -> int:
    count = 0
    with work("Reading the audit log", as_json=as_json) as told, new_file(out) as file:
        for entry in told.counted(entries, "entries"):
            file.write(entry.model_dump_json().encode() + b"\n")
            count += 1
    return count
