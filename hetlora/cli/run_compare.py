"""`hetlora run compare`: what runs differ in, and how they did, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from hetlora.cli.completion import complete_runs
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, plain, print_json, stdout
from hetlora.cli.trust import CaFileOption
from hetlora.errors import SettingsError
from hetlora.messages.figures import RoundFigures
from hetlora.messages.management import RunStatus
from hetlora.states import RoundState


def compare(
    run_ids: Annotated[
        list[str], typer.Argument(help="Two runs or more.", metavar="RUN...", autocompletion=complete_runs)
    ],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs: the settings that differ, then accuracy and loss on what devices hold out, by round.

    Where a round was not evaluated its training loss stands, with a ~ before it.

    Example: `hetlora run compare RUN RUN`
    """
    if len(set(run_ids)) < 2 or len(set(run_ids)) < len(run_ids):
        raise SettingsError("runs to compare", got=", ".join(run_ids), expected="two or more, each once")
    with connect(url, token, ca_file) as operator:
        runs = [operator.run(run_id) for run_id in run_ids]
        rounds = [committed(operator.figures(run_id)) for run_id in run_ids]
    differing = differences(runs)
    if as_json:
        columns = [
            {"run_id": run.run_id, "rounds": _plain_rounds(own)}
            for run, own in zip(runs, rounds, strict=True)
        ]
        print_json({"settings": differing, "runs": columns})
        return
    titles = [run.name or run.run_id for run in runs]
    stdout.print(_table("Settings that differ", "setting", titles, differing))
    by_round = {
        str(index + 1): [_score(own.get(index)) for own in rounds]
        for index in sorted({index for own in rounds for index in own})
    }
    stdout.print(_table("By round: accuracy, loss, MB sent up", "round", titles, by_round))


def committed(figures: Any) -> dict[int, RoundFigures]:
    """The rounds that committed, by index."""
    return {own.round_index: own for own in figures if own.state == RoundState.COMMITTED}


def differences(runs: Sequence[RunStatus]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, by dotted path, each with the value of every run."""
    flat = [
        flattened(
            {"population": run.population, "bundle": run.bundle, **run.settings.model_dump(mode="json")}
        )
        for run in runs
    ]
    paths = sorted({path for own in flat for path in own})
    found = {path: [own.get(path) for own in flat] for path in paths}
    return {path: values for path, values in found.items() if any(own != values[0] for own in values)}


def flattened(values: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """Nested settings by dotted path; lists are values."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{parent}{key}"
        found |= flattened(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def _plain_rounds(rounds: Mapping[int, RoundFigures]) -> list[dict[str, Any]]:
    return [own.model_dump(mode="json") for own in rounds.values()]


def _score(figures: RoundFigures | None) -> str:
    if figures is None:
        return ""
    parts = [] if figures.evaluation_accuracy is None else [f"{figures.evaluation_accuracy:.1%}"]
    if figures.evaluation_loss is not None:
        parts.append(f"{figures.evaluation_loss:.3f}")
    elif figures.last_loss is not None:
        parts.append(f"~{figures.last_loss:.3f}")
    return "  ".join((*parts, f"{figures.uploaded_bytes / 1e6:.2f}"))


def _table(title: str, heading: str, columns: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(heading, no_wrap=True)
    for column in columns:
        table.add_column(plain(column), overflow="fold")
    for name, values in rows.items():
        table.add_row(plain(name), *(plain(value) for value in values))
    return table
