"""`hetlora run`: create, start, watch and list runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.evaluation_table import evaluation_table
from hetlora.cli.name_options import OfPopulationOption, RunArgument
from hetlora.cli.operator import DEFAULT_URL, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, MostOption, print_items, print_json, say, stdout
from hetlora.cli.rule_options import choices_in_words
from hetlora.cli.rule_table import print_tables
from hetlora.cli.run_apply import apply, check, clone, write_file
from hetlora.cli.run_compare import compare
from hetlora.cli.run_create import create
from hetlora.cli.run_export import export
from hetlora.cli.run_figures import assignments, figures
from hetlora.cli.run_told import show
from hetlora.cli.run_watch import watch
from hetlora.cli.trust import CaFileOption
from hetlora.messages.management import RunStatus
from hetlora.states import RunState

app = typer.Typer(no_args_is_help=True, help="Runs: one execution of a task, with frozen settings and seed.")

app.command()(create)
app.command()(apply)
app.command()(check)
app.command("file")(write_file)
app.command()(clone)
app.command()(compare)
app.command("export")(export)
app.command()(figures)
app.command()(assignments)
app.command()(watch)


@app.command("rules")
def list_rules(as_json: JsonFlag = False) -> None:
    """List rules, server optimizers and defences with their constants; docs/rules.md says what suits what.

    Example: `hetlora run rules`
    """
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
    """Start a run.

    Example: `hetlora run start RUN`
    """
    _move(run_id, "start", url, token, ca_file, as_json)


@app.command()
def pause(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pause a run: devices get no new work.

    Example: `hetlora run pause RUN`
    """
    _move(run_id, "pause", url, token, ca_file, as_json)


@app.command()
def resume(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Resume a paused run.

    Example: `hetlora run resume RUN`
    """
    _move(run_id, "resume", url, token, ca_file, as_json)


@app.command()
def stop(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop a run for good; what it committed stays.

    Example: `hetlora run stop RUN`
    """
    _move(run_id, "stop", url, token, ca_file, as_json)


@app.command("show")
def show_run(
    run_id: RunArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how a run stands, and how its adapter versions did on examples that devices hold out.

    Example: `hetlora run show RUN`
    """
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
    population: OfPopulationOption = None,
    state: Annotated[RunState | None, typer.Option(help="Only those in this state.")] = None,
    most: MostOption = 100,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first.

    Example: `hetlora run list --population keyboard --state running`
    """
    columns = ["run_id", "name", "population", "state", "rounds_committed", "adapter_version", "created_at"]
    with connect(url, token, ca_file) as operator:
        found = (
            run
            for run in operator.runs()
            if population in (None, run.population) and state in (None, run.state)
        )
        print_items(islice(found, most), columns, as_json=as_json, title="Runs")


def _move(run_id: str, verb: str, url: str, token: str, ca_file: Path | None, as_json: bool) -> None:
    with connect(url, token, ca_file) as operator:
        show(operator.move_run(run_id, verb), as_json)
