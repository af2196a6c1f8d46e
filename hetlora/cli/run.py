"""`hetlora run`: create, start, watch and list runs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.live import Live

from hetlora.bundle import open_bundle
from hetlora.cli.operator import DEFAULT_URL, Operator, TokenOption, UrlOption, connect
from hetlora.cli.output import JsonFlag, print_items, print_json, say, stdout
from hetlora.cli.run_table import round_table
from hetlora.errors import SettingsError
from hetlora.manifest import Manifest
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings, RunStatus
from hetlora.states import RunState, is_final

app = typer.Typer(no_args_is_help=True, help="Runs: one execution of a task, with frozen settings and seed.")

# For the defaults of what it does not name.
RUN: Final = RunSettings(goal_count=1, max_rank=1)

RunArgument = Annotated[str, typer.Argument(help="The run.")]


@app.command()
def create(
    population: Annotated[str, typer.Option(help="Whose devices take part.")],
    bundle: Annotated[
        str, typer.Option(help="A published digest, or a bundle folder (published if need be).")
    ],
    goal_count: Annotated[int, typer.Option(min=1, help="Accepted updates that commit a round.")],
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds to commit.")] = RUN.rounds,
    over_selection: Annotated[
        float, typer.Option(help="Devices asked, as a multiple of the goal.")
    ] = RUN.over_selection,
    minimum_share: Annotated[
        float, typer.Option(help="Share of the goal that suffices at the window's end.")
    ] = RUN.minimum_share,
    report_window_seconds: Annotated[
        float, typer.Option(help="How long a round collects at most.")
    ] = RUN.report_window_seconds,
    lease_seconds: Annotated[
        float, typer.Option(help="How long a device may hold an assignment.")
    ] = RUN.lease_seconds,
    min_rank: Annotated[int, typer.Option(min=1, help="No device trains below this rank.")] = RUN.min_rank,
    max_rank: Annotated[int | None, typer.Option(min=1, help="Global rank; by default the bundle's.")] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Optimizer steps of a device in one round.")
    ] = RUN.training.steps,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one step.")] = RUN.training.batch_size,
    learning_rate: Annotated[float, typer.Option(help="AdamW's learning rate.")] = RUN.training.learning_rate,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an example; by default the bundle's.")
    ] = None,
    pruning_decay: Annotated[
        float, typer.Option(help="HetLoRA's gamma; 1 switches self-pruning off.")
    ] = RUN.training.pruning_decay,
    pruning_penalty: Annotated[float, typer.Option(help="HetLoRA's lambda.")] = RUN.training.pruning_penalty,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the initial adapter and of all batches.")
    ] = RUN.seed,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Create a run in state draft; `hetlora run start` sets it going."""
    with connect(url, token) as operator:
        digest, manifest = _published(operator, bundle)
        settings = RunSettings(
            rounds=rounds,
            goal_count=goal_count,
            over_selection=over_selection,
            minimum_share=minimum_share,
            report_window_seconds=report_window_seconds,
            lease_seconds=lease_seconds,
            min_rank=min_rank,
            max_rank=max_rank or manifest.adapter.max_rank,
            seed=seed,
            training=TrainingSettings(
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                max_tokens=max_tokens or manifest.max_tokens,
                pruning_decay=pruning_decay,
                pruning_penalty=pruning_penalty,
            ),
        )
        run = operator.create_run(RunCreate(population=population, bundle=digest, settings=settings))
    _show(run, as_json)


@app.command()
def start(
    run_id: RunArgument, url: UrlOption = DEFAULT_URL, token: TokenOption = "", as_json: JsonFlag = False
) -> None:
    """Start a run."""
    _move(run_id, "start", url, token, as_json)


@app.command()
def pause(
    run_id: RunArgument, url: UrlOption = DEFAULT_URL, token: TokenOption = "", as_json: JsonFlag = False
) -> None:
    """Pause a run: devices get no new work."""
    _move(run_id, "pause", url, token, as_json)


@app.command()
def resume(
    run_id: RunArgument, url: UrlOption = DEFAULT_URL, token: TokenOption = "", as_json: JsonFlag = False
) -> None:
    """Resume a paused run."""
    _move(run_id, "resume", url, token, as_json)


@app.command()
def stop(
    run_id: RunArgument, url: UrlOption = DEFAULT_URL, token: TokenOption = "", as_json: JsonFlag = False
) -> None:
    """Stop a run for good; what it committed stays."""
    _move(run_id, "stop", url, token, as_json)


@app.command("list")
def list_runs(url: UrlOption = DEFAULT_URL, token: TokenOption = "", as_json: JsonFlag = False) -> None:
    """List runs."""
    columns = ["run_id", "population", "state", "rounds_committed", "adapter_version", "created_at"]
    with connect(url, token) as operator:
        print_items(operator.runs(), columns, as_json=as_json, title="Runs")


@app.command()
def watch(
    run_id: RunArgument,
    every_seconds: Annotated[float, typer.Option(min=0.1, help="How often to look.")] = 1.0,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Watch the rounds of a run until it ends; with --json, one object a line for each change."""
    with connect(url, token) as operator:
        if as_json:
            _watch_lines(operator, run_id, every_seconds)
            return
        with Live(console=stdout, auto_refresh=False) as live:
            while True:
                run = operator.run(run_id)
                rounds = list(operator.rounds(run_id))
                newest = rounds[-1].round_index if rounds else None
                live.update(
                    round_table(run, rounds, list(operator.assignments(run_id, newest))), refresh=True
                )
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


def _published(operator: Operator, bundle: str) -> tuple[str, Manifest]:
    folder = Path(bundle)
    if folder.is_dir():
        opened = open_bundle(folder)
        return operator.publish_bundle(opened).digest, opened.manifest
    if not re.fullmatch("[0-9a-f]{64}", bundle):
        raise SettingsError(
            "no such bundle", got=bundle, expected="a bundle folder, or the digest of a published one"
        )
    return bundle, operator.manifest(bundle)


def _move(run_id: str, verb: str, url: str, token: str, as_json: bool) -> None:
    with connect(url, token) as operator:
        _show(operator.move_run(run_id, verb), as_json)


def _show(run: RunStatus, as_json: bool) -> None:
    if as_json:
        print_json(run)
        return
    hint = f"; start it with `hetlora run start {run.run_id}`" if run.state == RunState.DRAFT else ""
    say(f"run {run.run_id}: {run.state}{hint}")
