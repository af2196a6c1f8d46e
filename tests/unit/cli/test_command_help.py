"""What `--help` of each command shows, and that no command of operators is without `--json`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from hetlora.cli.main import app


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, TyperCommand]]:
    """Each command that does something, by how it is typed."""
    if isinstance(command, TyperGroup):
        for name, own in command.commands.items():
            yield from leaves(own, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(leaves(get_command(app)))


def options(command: TyperCommand) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


# Whatever an operator's token opens.
OPERATORS = {name: own for name, own in COMMANDS.items() if "--token" in options(own)}


@pytest.mark.parametrize("name", OPERATORS)
def test_command_of_operators_speaks_json_and_shows_how_it_is_typed(name: str) -> None:
    command = OPERATORS[name]
    help_text = command.help or ""

    assert {"--json", "--url", "--ca-file"} <= options(command)
    shown = re.findall(rf"`hetlora {re.escape(name)}( [^`]*)?`", help_text)
    assert shown, f"no example in hetlora {name} --help"
    named = set(re.findall(r" (--[a-z-]+)", " ".join(shown)))
    assert named <= options(command), "the example names options that are none"


def test_every_command_but_the_benchmarks_speaks_json() -> None:
    assert {name for name, own in COMMANDS.items() if "--json" not in options(own)} == {"bench"}


def test_every_command_and_group_says_what_it_is_for() -> None:
    silent = [name for name, own in COMMANDS.items() if not own.help]
    assert silent == []
