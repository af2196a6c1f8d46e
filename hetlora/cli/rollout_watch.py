"""`hetlora rollout watch`: a rollout, as it goes from stage to stage."""

from __future__ import annotations

from collections.abc import Iterable

from hetlora.cli.name_options import RolloutArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json
from hetlora.cli.rollout_told import rollout_drawn
from hetlora.cli.trust import CaFileOption
from hetlora.cli.watching import EveryOption, draw, looks
from hetlora.messages.rollouts import RolloutStatus


def watch(
    rollout_id: RolloutArgument,
    every_seconds: EveryOption = 2.0,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Watch a rollout until it ends; with --json, one object a line for each change.

    Ctrl-C ends the watching, and not the rollout. In a pipe the end alone is told.

    Example: `hetlora rollout watch ROLLOUT`
    """
    with connect(url, token, ca_file) as operator:
        seen = looks(
            lambda: operator.rollouts.one(rollout_id), lambda own: own.ended_at is not None, every_seconds
        )
        if as_json:
            _tell_changes(seen)
        else:
            draw(seen, rollout_drawn)


def _tell_changes(seen: Iterable[RolloutStatus]) -> None:
    told: RolloutStatus | None = None
    for own in seen:
        if own != told:
            print_json(own)
        told = own
