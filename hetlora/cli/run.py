"""`hetlora run`: create, start, watch and list runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from hetlora.cli.evaluation_table import accuracies_of, evaluation_table
from hetlora.cli.operator import DEFAULT_URL, Operator, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say, stdout
from hetlora.cli.rule_options import choices_in_words
from hetlora.cli.rule_table import print_tables
from hetlora.cli.run_apply import apply, check, clone, write_file
from hetlora.cli.run_compare import compare
from hetlora.cli.run_create import create, show
from hetlora.cli.run_export import export
from hetlora.cli.run_table import round_table
from hetlora.cli.trust import CaFileOption
from hetlora.messages.management import RunStatus
from hetlora.states import is_final

app = typer.Typer(no_args_is_help=True, help="Runs: one execution of a task, with frozen settings and seed.")

app.command()(create)
app.command()(apply)
app.command()(check)
app.command("file")(write_file)
app.command()(clone)
app.command()(compare)
app.command("export")(export)

RunArgument = Annotated[str, typer.Argument(help="The run.")]


@app.command("rules")
def list_rules(as_json: JsonFlag = False) -> None:
    """List rules, server optimizers and defences with their constants; docs/rules.md says what suits what."""
    if as_json:
        print_json({"items": [choice.model_dump(mode="json") for choice in choices_in_words()]})
    else:
        print_tables(choices_in_words())


@app.command()
def start(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a run."""
    _move(run_id, "start", url, token, ca_file, as_json)


@app.command()
def pause(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pause a run: devices get no new work."""
    _move(run_id, "pause", url, token, ca_file, as_json)


@app.command()
def resume(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Resume a paused run."""
    _move(run_id, "resume", url, token, ca_file, as_json)


@app.command()
def stop(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop a run for good; what it committed stays."""
    _move(run_id, "stop", url, token, ca_file, as_json)


@app.command("show")
def show_run(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how a run stands, and how its adapter versions did on examples that devices hold out."""
    with connect(url, token, ca_file) as operator:
        run, versions = operator.run(run_id), list(operator.adapters(run_id))
    if as_json:
        items = [
            {"version": own.version, "round_index": own.round_index, **own.evaluation.model_dump(mode="json")}
            for own in reversed(versions)
            if own.evaluation is not None
        ]
        print_json({**run.model_dump(mode="json"), "evaluations": items})
        return
    say(
        f"run {run.run_id}: {run.state}, {run.reason}",
        f"{run.rounds_committed} of {run.settings.rounds} rounds, newest adapter {run.adapter_version}",
        *_origin(run),
    )
    if run.settings.evaluation is not None:
        stdout.print(evaluation_table(versions))


def _origin(run: RunStatus) -> Iterator[str]:
    if run.name is not None:
        yield f"name {run.name}, asked for as {run.request_sha256}"
    if run.cloned_from is not None:
        yield f"cloned from {run.cloned_from}"


@app.command("list")
def list_runs(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List runs."""
    columns = ["run_id", "name", "population", "state", "rounds_committed", "adapter_version", "created_at"]
    with connect(url, token, ca_file) as operator:
        print_items(operator.runs(), columns, as_json=as_json, title="Runs")


@app.command()
def watch(
    run_id: RunArgument,
    every_seconds: Annotated[float, typer.Option(min=0.1, help="How often to look.")] = 1.0,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Watch the rounds of a run until it ends; with --json, one object a line for each change."""
    with connect(url, token, ca_file) as operator:
        if as_json:
            _watch_lines(operator, run_id, every_seconds)
            return
        with Live(console=stdout, auto_refresh=False) as live:
            while True:
                run = operator.run(run_id)
                rounds = list(operator.rounds(run_id))
                newest = rounds[-1].round_index if rounds else None
                versions = list(operator.adapters(run_id)) if run.settings.evaluation else []
                assignments = list(operator.assignments(run_id, newest))
                live.update(round_table(run, rounds, assignments, accuracies_of(versions)), refresh=True)
                if is_final(run.state):
                    return
                time.sleep(every_seconds)


def _watch_lines(operator: Operator, run_id: str, every_seconds: float) -> None:
    told: dict[tuple[int, int], object] = {}
    while True:
        run = operator.run(run_id)
        for status in operator.rounds(run_id):
            key = (status.round_index, status.attempt)
            if told.get(key) != status:
                told[key] = status
                print_json(status)
        if is_final(run.state):
            print_json(run)
            return
        time.sleep(every_seconds)


def _move(run_id: str, verb: str, url: str, token: str, ca_file: Path | None, as_json: bool) -> None:
    with connect(url, token, ca_file) as operator:
        show(operator.move_run(run_id, verb), as_json)
