"""`hetlora alias`: names within a population that point at adapter versions."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.completion import complete_aliases
from hetlora.cli.name_options import PopulationArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say
from hetlora.cli.trust import CaFileOption
from hetlora.cli.version_option import VersionArgument, version_of
from hetlora.messages.registry import AliasChange

AliasArgument = Annotated[
    str,
    typer.Argument(
        help="The alias, such as champion or candidate: lower-case letters, digits, . - _",
        autocompletion=complete_aliases,
    ),
]
ReasonOption = Annotated[str, typer.Option(help="Why; the alias's history keeps it.")]

app = typer.Typer(
    no_args_is_help=True,
    help="Aliases: names within a population, such as `champion`, that point at adapter versions. "
    "Commands about adapters take `POPULATION@ALIAS` for a version.",
)


@app.command("set")
def set_alias(
    population: PopulationArgument,
    alias: AliasArgument,
    version: VersionArgument,
    reason: ReasonOption,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an alias at an adapter version, wherever it pointed before.

    `hetlora alias set keyboard candidate RUN-v000005 --reason "0.4 less loss than v000003"`

    `hetlora alias set keyboard champion keyboard@candidate --reason "a week on the canaries"`

    The version is of a run of the same population. Devices see nothing of it, and go on with what they have.
    What the alias pointed at before is in `hetlora alias history`.
    """
    with connect(url, token, ca_file) as operator:
        wanted = version_of(operator, version)
        _tell(operator.registry.set_alias(population, alias, wanted, reason), as_json)


@app.command()
def remove(
    population: PopulationArgument,
    alias: AliasArgument,
    reason: ReasonOption,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take an alias away; versions and the alias's history stay.

    Example: `hetlora alias remove keyboard candidate --reason "was not better"`
    """
    with connect(url, token, ca_file) as operator:
        _tell(operator.registry.remove_alias(population, alias, reason), as_json)


def _tell(change: AliasChange, as_json: bool) -> None:
    if as_json:
        print_json(change)
    else:
        where = f"{change.population}@{change.alias}"
        say(f"{where}: {change.new or 'removed'}" + (f", before {change.old}" if change.old else ""))


@app.command("list")
def list_aliases(
    population: PopulationArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the aliases of a population and where they point.

    Example: `hetlora alias list keyboard`
    """
    columns = ["alias", "version", "key_name", "at", "reason"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.registry.aliases(population), columns, as_json=as_json, title="Aliases")


@app.command()
def history(
    population: PopulationArgument,
    alias: AliasArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List where an alias pointed, who moved it and why, newest first; also of one that was removed.

    Example: `hetlora alias history keyboard champion`
    """
    columns = ["change_id", "old", "new", "key_name", "at", "reason"]
    with connect(url, token, ca_file) as operator:
        changes = operator.registry.alias_changes(population, alias)
        print_items(changes, columns, as_json=as_json, title=f"{population}@{alias}")
