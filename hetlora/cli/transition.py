"""`hetlora transition`: every change of state that the service keeps, with time and reason."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, MostOption, print_items
from hetlora.cli.trust import CaFileOption
from hetlora.messages.fleet import Subject

app = typer.Typer(no_args_is_help=True, help="Transitions: every change of state, with time and reason.")


@app.command("list")
def list_transitions(
    subject: Annotated[Subject | None, typer.Option(help="Only of this kind of thing.")] = None,
    subject_id: Annotated[str | None, typer.Option("--id", help="Only of the one with this id.")] = None,
    most: MostOption = 100,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List changes of state, newest first: what became of a run, a round, an assignment, a device, a rollout.

    Example: `hetlora transition list --subject assignment --id ASSIGNMENT`
    """
    columns = ["subject_id", "subject", "at", "old", "new", "reason"]
    with connect(url, token, ca_file) as operator:
        found = operator.history.transitions(subject, subject_id, newest_first=True)
        print_items(islice(found, most), columns, as_json=as_json, title="Transitions")
