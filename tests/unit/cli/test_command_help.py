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
    return {name for own in command.params for name in (*own.opts, *own.secondary_opts)}


# Benchmarks are a program of their own, and their options.
OWN = {name: command for name, command in COMMANDS.items() if name != "bench"}


@pytest.mark.parametrize("name", OWN)
def test_command_speaks_json_and_shows_how_it_is_typed(name: str) -> None:
    command = OWN[name]

    assert "--json" in options(command)
    shown = re.findall(rf"`hetlora {re.escape(name)}(\s[^`]*)?`", command.help or "")
    assert shown, f"no example in hetlora {name} --help"
    assert set(re.findall(r"\s(--[a-z-]+)", " ".join(shown))) <= options(command), "options that it lacks"


def test_commands_find_the_service_and_their_key_alike() -> None:
    of_operators = {name: own for name, own in COMMANDS.items() if "--token" in options(own)}

    assert len(of_operators) > 50
    assert [name for name, own in of_operators.items() if not {"--url", "--ca-file"} <= options(own)] == []
