"""`hetlora run watch`: the rounds of a run, as they go."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType

from hetlora.cli.evaluation_table import accuracies_of
from hetlora.cli.name_options import RunArgument
from hetlora.cli.operator import DEFAULT_URL, Operator, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_json
from hetlora.cli.run_table import round_table
from hetlora.cli.trust import CaFileOption
from hetlora.cli.watching import EveryOption, draw, looks
from hetlora.messages.management import RoundStatus, RunStatus
from hetlora.states import is_final


def watch(
    run_id: RunArgument,
    every_seconds: EveryOption = 1.0,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Watch the rounds of a run until it ends; with --json, one object a line for each change.

    Ctrl-C ends the watching, and not the run. In a pipe the last table alone is told.

    Example: `hetlora run watch RUN`
    """
    with connect(url, token, ca_file) as operator:
        if as_json:
            _tell_changes(looks(lambda: _rounds(operator, run_id), _has_ended, every_seconds))
        else:
            seen = looks(lambda: _drawn(operator, *_rounds(operator, run_id)), _has_ended, every_seconds)
            draw(seen, lambda own: own[1])


def _has_ended(seen: tuple[RunStatus, object]) -> bool:
    return is_final(seen[0].state)


def _rounds(operator: Operator, run_id: str) -> tuple[RunStatus, list[RoundStatus]]:
    # The run is asked for first: once it has ended its rounds change no more.
    return operator.run(run_id), list(operator.rounds(run_id))


def _drawn(operator: Operator, run: RunStatus, rounds: list[RoundStatus]) -> tuple[RunStatus, RenderableType]:
    newest = rounds[-1].round_index if rounds else None
    versions = list(operator.adapters(run.run_id)) if run.settings.evaluation else []
    assignments = list(operator.assignments(run.run_id, newest))
    return run, round_table(run, rounds, assignments, accuracies_of(versions))


def _tell_changes(seen: Iterable[tuple[RunStatus, list[RoundStatus]]]) -> None:
    told: dict[tuple[int, int], RoundStatus] = {}
    for run, rounds in seen:
        for own in rounds:
            key = (own.round_index, own.attempt)
            if told.get(key) != own:
                told[key] = own
                print_json(own)
        if is_final(run.state):
            print_json(run)
