"""`hetlora population`: devices that share one learning problem."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.name_options import PopulationArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.trust import CaFileOption
from hetlora.messages.fleet import PopulationCreated

ValidOption = Annotated[
    float | None, typer.Option(help="How long the enrolment token admits devices; for ever if not given.")
]

app = typer.Typer(no_args_is_help=True, help="Populations: devices that share one learning problem.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, dot, dash, underscore.")],
    approval: Annotated[
        bool, typer.Option(help="Devices with the token wait until `hetlora device decide` accepts them.")
    ] = False,
    valid_seconds: ValidOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a population and show its enrolment token, this once.

    Example: `hetlora population create keyboard`
    """
    with connect(url, token, ca_file) as operator:
        created = operator.create_population(
            name, admission="approval" if approval else "token", token_valid_seconds=valid_seconds
        )
    _tell(created, as_json)


@app.command()
def rotate_token(
    name: PopulationArgument,
    valid_seconds: ValidOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Replace a population's enrolment token and show the new one, this once; enrolled devices stay.

    Example: `hetlora population rotate-token keyboard --valid-seconds 86400`
    """
    with connect(url, token, ca_file) as operator:
        rotated = operator.rotate_token(name, token_valid_seconds=valid_seconds)
    _tell(rotated, as_json)


def _tell(created: PopulationCreated, as_json: bool) -> None:
    if as_json:
        print_json(created)
        return
    say(f"population {created.name}", f"enrolment token {created.enrolment_token}  (kept nowhere else)")
    if created.token_expires_at is not None:
        say(f"admits until {created.token_expires_at:%Y-%m-%d %H:%M} UTC")


@app.command("list")
def list_populations(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List populations.

    Example: `hetlora population list`
    """
    with connect(url, token, ca_file) as operator:
        print_items(
            operator.populations(),
            ["name", "admission", "token_expires_at", "devices", "created_at"],
            as_json=as_json,
            title="Populations",
        )
