"""What a shell completes values with: words that are known here, and names that the service tells at once.

A shell asks whenever somebody presses Tab. A service that is not there within `TIMEOUT_SECONDS`, or that lets
nobody in, completes nothing, and nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import typer

from hetlora.cli.operator import DEFAULT_URL, connect
from hetlora.errors import HetloraError
from hetlora.messages.common import Item
from hetlora.messages.fleet import PopulationStatus
from hetlora.messages.management import RunStatus
from hetlora.messages.rollouts import GroupStatus, RolloutStatus

TIMEOUT_SECONDS: Final = 1.0
ALIASES: Final = ("champion", "candidate")  # the usual ones; others are as good
Candidate = tuple[str, str]  # what is typed, and a word on it where the shell shows one


def complete_populations(ctx: typer.Context, incomplete: str) -> list[Candidate]:
    """Names of populations."""
    found = _told(ctx, "/populations", PopulationStatus)
    return _beginning(incomplete, ((own.name, f"{own.devices} devices") for own in found))


def complete_runs(ctx: typer.Context, incomplete: str) -> list[Candidate]:
    """Ids of runs, the newest hundred."""
    found = _told(ctx, "/runs", RunStatus, newest_first="true")
    return _beginning(
        incomplete, ((own.run_id, f"{own.name or own.population}, {own.state}") for own in found)
    )


def complete_rollouts(ctx: typer.Context, incomplete: str) -> list[Candidate]:
    """Ids of rollouts."""
    found = _told(ctx, "/rollouts", RolloutStatus)
    return _beginning(incomplete, ((own.rollout_id, f"{own.version}, {own.state}") for own in found))


def complete_groups(ctx: typer.Context, incomplete: str) -> list[Candidate]:
    """Ids of groups."""
    found = _told(ctx, "/groups", GroupStatus)
    return _beginning(incomplete, ((own.group_id, f"{own.name} of {own.population}") for own in found))


def complete_aliases(incomplete: str) -> list[str]:
    """The usual names of aliases."""
    return [alias for alias in ALIASES if alias.startswith(incomplete)]


def _beginning(incomplete: str, found: Iterable[Candidate]) -> list[Candidate]:
    return [(name, word) for name, word in found if name.startswith(incomplete)]


def _told(ctx: typer.Context, path: str, kind: type[Item], **query: str) -> tuple[Item, ...]:
    given = ctx.params
    where = given.get("url") or DEFAULT_URL, given.get("token") or "", given.get("ca_file")
    try:
        with connect(*where, timeout_seconds=TIMEOUT_SECONDS) as operator:
            return operator.page(path, kind, query).items
    except HetloraError:
        return ()
