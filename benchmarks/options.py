"""Options that several benchmarks share, and those that hold several values, comma-separated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from hetlora.cli.folders import writable
from hetlora.errors import SettingsError

Value = TypeVar("Value", bound=str)

Threads = Annotated[int, typer.Option(min=1, help="Threads of each process.")]
Rank = Annotated[int, typer.Option(min=1, help="LoRA rank on query, key, value and output.")]
WarmUp = Annotated[int, typer.Option(min=0, help="Steps before those that count.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps of a process that count.")]
Pairs = Annotated[int, typer.Option(min=1, help="How often each process is started, all in turn.")]
Layers = Annotated[int, typer.Option(min=1, max=64, help="Layers of the model; fewer for a first look.")]
Quick = Annotated[bool, typer.Option("--quick", help="One start and two steps of each.")]
Results = Annotated[
    Path,
    typer.Option(
        callback=writable,
        help="Folder of the result, named for its question, and of its picture.",
        show_default="benchmarks/results",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(callback=writable, help="Folder of finished runs, so that they are not repeated."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, adapters and tokens.")]


def values_of(text: str, option: str) -> list[str]:
    """The values of `a,b`, in their order.

    Raises:
        SettingsError: there are none.
    """
    values = [value.strip() for value in text.split(",") if value.strip()]
    if not values:
        raise SettingsError(f"--{option} is empty", got=repr(text), expected="values, comma-separated")
    return values


def counts_of(text: str, option: str) -> list[int]:
    """Whole numbers from 1 on.

    Raises:
        SettingsError: there are none, or one is something else.
    """
    values = values_of(text, option)
    if not all(value.isdecimal() and int(value) > 0 for value in values):
        raise SettingsError(f"--{option}", got=text, expected="whole numbers from 1 on, comma-separated")
    return [int(value) for value in values]


def choices_of(text: str, option: str, known: Sequence[Value]) -> list[Value]:
    """Those of the `known` values that are named, in the order of `known`.

    Raises:
        SettingsError: there are none, or one is not known.
    """
    values = values_of(text, option)
    strange = [value for value in values if value not in known]
    if strange:
        raise SettingsError(f"--{option}", got=strange, expected=f"some of {[*known]}")
    return [value for value in known if value in values]
