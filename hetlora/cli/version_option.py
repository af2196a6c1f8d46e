"""Which adapter version a command is about: by its id, or by an alias."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.operator import Operator

VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="An adapter version, or POPULATION@ALIAS.")
]


def version_of(operator: Operator, given: str) -> str:
    """The id of a version; an alias is looked up now.

    Raises:
        NotFound: no such population or alias.
    """
    population, at, alias = given.partition("@")
    return operator.registry.alias(population, alias).version if at else given
