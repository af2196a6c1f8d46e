"""Look at something again and again until it ends: drawn anew on a terminal, or a line for each change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Final, TypeVar

import typer
from rich.console import RenderableType
from rich.live import Live

from hetlora.cli.output import stdout
from hetlora.errors import ServiceUnreachable

Seen = TypeVar("Seen")

AWAY_SECONDS: Final = 60.0

EveryOption = Annotated[float, typer.Option(min=0.1, help="How often to look.")]


def looks(look: Callable[[], Seen], ended: Callable[[Seen], bool], every_seconds: float) -> Iterator[Seen]:
    """What is seen, at this pace, the end as the last.

    Raises:
        ServiceUnreachable: at the first look, or for `AWAY_SECONDS` on end: a service may be started anew.
    """
    answered: float | None = None
    while True:
        try:
            seen = look()
        except ServiceUnreachable:
            if answered is None or time.monotonic() - answered > AWAY_SECONDS:
                raise
        else:
            answered = time.monotonic()
            yield seen
            if ended(seen):
                return
        time.sleep(every_seconds)


def draw(seen: Iterator[Seen], drawn: Callable[[Seen], RenderableType]) -> None:
    """Draw what is seen in the place of what was; in a pipe, the end alone."""
    with Live(console=stdout, auto_refresh=False) as live:
        for own in seen:
            live.update(drawn(own), refresh=True)
