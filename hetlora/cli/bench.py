"""`hetlora bench`: the scripts of `benchmarks/`."""

from __future__ import annotations

from typing import Annotated

import typer

from hetlora.cli.parts import part
from hetlora.errors import SettingsError


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which question; without it, the questions are listed.")] = "",
) -> None:
    """Run one benchmark: `hetlora bench round --help` tells its options."""
    with part("bench"):
        from benchmarks.harness import questions
    known = questions()
    if not name:
        for question, meaning in known.items():
            typer.echo(f"{question:<12} {meaning}")
        return
    if name not in known:
        raise SettingsError("no such benchmark", got=name, expected=" or ".join(known))
    with part("all"):
        from importlib import import_module

        script = import_module(f"benchmarks.bench_{name}")
    typer.main.get_command(script.app)(args=context.args, prog_name=f"hetlora bench {name}")
