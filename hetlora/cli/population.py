"""`hetlora population`: devices that share one learning problem."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.trust import CaFileOption

app = typer.Typer(no_args_is_help=True, help="Populations: devices that share one learning problem.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, dot, dash, underscore.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a population and show its enrolment token, this once."""
    with connect(url, token, ca_file) as operator:
        created = operator.create_population(name)
    if as_json:
        print_json(created)
    else:
        say(f"population {created.name}", f"enrolment token {created.enrolment_token}  (kept nowhere else)")


@app.command("list")
def list_populations(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List populations."""
    with connect(url, token, ca_file) as operator:
        print_items(
            operator.populations(), ["name", "devices", "created_at"], as_json=as_json, title="Populations"
        )
