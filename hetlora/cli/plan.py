"""`hetlora plan`: how a device would train a bundle, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.table import Table

from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.device_profile import read_profile
from hetlora.cli.folder_option import folder_of
from hetlora.cli.output import JsonFlag, plain, print_json, say, stdout
from hetlora.cli.parts import part
from hetlora.errors import DependencyMissing, DeviceTooSmall
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import CapabilityReport, Offer, TrainingSettings

if TYPE_CHECKING:
    from edge_sdk.planning.forecast import Correction
    from edge_sdk.planning.planner import Attempt, Planner, RankChoice

USUAL: Final = TrainingSettings()


def plan(
    bundle: Annotated[Path, typer.Option(help="The folder of the bundle that is to be trained.")],
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Another device, as `hetlora probe --report --json` told of it; this one if not given."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            parser=folder_of,
            metavar="<path>",
            help="This device's folder: its kept rates, and what real steps of the bundle took here. Without "
            "--profile.",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many examples the device holds.")] = 1000,
    longest_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the longest of them; --max-tokens if not given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that training may use.")] = None,
    traffic_bytes: Annotated[
        int | None, typer.Option(min=0, help="What adapters may take over the network in a round, both ways.")
    ] = None,
    min_rank: Annotated[int, typer.Option(min=1, help="The run's lowest rank.")] = 1,
    max_rank: Annotated[
        int | None,
        typer.Option(min=1, help="The run's highest, or what pruning left; by default the bundle's."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that the run asks for.")] = USUAL.steps,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one step.")] = USUAL.batch_size,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an example; by default the bundle's.")
    ] = None,
    min_tokens: Annotated[
        int | None, typer.Option(min=1, help="To so many the run lets a device cut its texts.")
    ] = None,
    round_seconds: Annotated[
        float, typer.Option(min=0.001, help="How long local training may take.")
    ] = 600.0,
    upload_precision: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="How numbers travel to the service.")
    ] = USUAL.upload_precision,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Tell of every rank what it would take, and the limit it passes."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Tell at which rank, in which micro-batches and with how many steps a device would train a bundle.

    Nothing is trained and no service is asked. Options named like those of `hetlora run create` stand for the
    run's settings. A device gives up first rows at a time, which costs nothing but time; then steps, down to
    half of them; then rank; and last, where the run lets it, tokens of its texts.

    Exit codes: 0 it would train; 3 a bundle, profile or option that cannot be used; 5 the device is too
    small, or tells too little of itself. With --explain the ranks are told all the same.

    Example: `hetlora plan --bundle bundle/ --profile phone.json --max-rank 32 --explain`
    """
    with part("edge"):
        from edge_sdk.planning.planner import Planner
    opened = open_bundle(bundle, verify=False)
    training = TrainingSettings(
        steps=steps,
        batch_size=batch_size,
        max_tokens=max_tokens or min(opened.manifest.max_tokens, 8192),
        min_tokens=min_tokens,
        upload_precision=upload_precision,
    )
    offer = _offer(opened, training, (min_rank, max_rank), round_seconds)
    device = _device(opened, profile, folder, training)
    if traffic_bytes is not None:
        device = device.model_copy(update={"traffic_bytes_per_round": traffic_bytes})
    known = None if profile is not None else _correction(opened, folder, device, threads)
    planner = Planner(device, opened.manifest, offer, examples, threads, longest_tokens=longest_tokens)
    _tell(planner if known is None else replace(planner, correction=known), known, explain, as_json)


def _offer(
    bundle: Bundle, training: TrainingSettings, ranks: tuple[int, int | None], round_seconds: float
) -> Offer:
    """What a service would offer, as far as a plan depends on it."""
    least, most = ranks
    return Offer(
        assignment_id="plan",
        run_id="plan",
        round_index=0,
        bundle=ObjectRef(sha256=bundle.digest, size_bytes=0),
        min_rank=least,
        max_rank=most or bundle.manifest.adapter.max_rank,
        round_seconds=round_seconds,
        training=training,
        lease_expires_at=datetime.now(UTC),
    )


def _device(
    bundle: Bundle, profile: Path | None, folder: Path | None, training: TrainingSettings
) -> CapabilityReport:
    from edge_sdk.probe import ModelShape, kept_rates, take_probe

    if profile is not None:
        return read_profile(profile)
    shape = ModelShape.of(bundle.manifest, batch=training.batch_size, tokens=training.max_tokens)
    return take_probe(folder or Path(), shape=shape, cache=kept_rates(folder)).report()


def _correction(
    bundle: Bundle, folder: Path | None, device: CapabilityReport, threads: int | None
) -> Correction | None:
    from edge_sdk.device_database import DeviceDatabase
    from edge_sdk.folder import DeviceFolder
    from edge_sdk.planning.corrections import Corrections, circumstances_of
    from edge_sdk.runtimes import runtime_for

    if folder is None or not DeviceFolder(folder).database.is_file():
        return None
    try:
        runtime = runtime_for(bundle.manifest)
    except DependencyMissing:  # nothing can have been measured
        return None
    database = DeviceDatabase(DeviceFolder(folder).database)
    try:
        return Corrections(database).of(bundle.digest, circumstances_of(device, threads, runtime))
    finally:
        database.close()


def _tell(planner: Planner, known: Correction | None, explain: bool, as_json: bool) -> None:
    try:
        choice, refusal = planner.choose(), None
    except DeviceTooSmall as error:
        choice, refusal = None, error
    attempts = list(planner.attempts(planner.lengths()[-1] if choice is None else choice.max_tokens))
    if as_json:
        print_json(_as_object(planner, choice, refusal, attempts, known))
    elif choice is not None or explain:
        _print(planner, choice, attempts if explain else [], known)
    if refusal is not None:
        raise refusal


def _as_object(
    planner: Planner,
    choice: RankChoice | None,
    refusal: DeviceTooSmall | None,
    attempts: Sequence[Attempt],
    known: Correction | None,
) -> dict[str, Any]:
    from edge_sdk.planning.explanation import concessions

    chosen = choice and {
        "rank": choice.rank,
        "bound_by": choice.bound_by,
        "micro_batch": choice.micro_batch,
        "batch": choice.step.batch,
        "steps": choice.forecast.steps,
        "max_tokens": choice.max_tokens,
        "forecast": asdict(choice.forecast),
        "concessions": list(concessions(planner, choice)),
    }
    return {
        "fits": choice is not None,
        "reason": None if refusal is None else str(refusal),
        "choice": chosen,
        "memory_budget_bytes": planner.memory_bytes,
        "correction": None if known is None else asdict(known),
        "ranks": [_row(attempt) for attempt in attempts],
    }


def _print(
    planner: Planner, choice: RankChoice | None, attempts: Sequence[Attempt], known: Correction | None
) -> None:
    from edge_sdk.planning.explanation import (
        bound_in_words,
        concessions,
        correction_in_words,
        settled_by_bundle,
    )

    if choice is not None:
        say(f"rank {choice.rank}: {bound_in_words(choice)}", *concessions(planner, choice))
    if attempts:
        stdout.print(_table(attempts))
        say(
            f"memory: {planner.memory_bytes / 1e6:.0f} MB, {planner.memory_share:.0%} of what is free",
            f"time: {planner.offer.round_seconds:.0f} s",
            f"forecast: {correction_in_words(known)}",
            *(f"bundle: {fact}" for fact in settled_by_bundle(planner.manifest)),
        )


def _row(attempt: Attempt) -> dict[str, Any]:
    forecast = attempt.forecast
    return {
        "rank": attempt.rank,
        "micro_batch": attempt.step.micro_batch,
        "steps": forecast.steps,
        "peak_bytes": forecast.peak_bytes,
        "step_seconds": forecast.step_seconds,
        "seconds": forecast.seconds,
        "download_bytes": forecast.download_bytes,
        "upload_bytes": forecast.upload_bytes,
        "joules": forecast.joules,
        "passes": attempt.passes,
    }


def _table(attempts: Sequence[Attempt]) -> Table:
    table = Table(title="What each rank would take", title_justify="left")
    headings = ("rank", "rows at a time", "steps", "peak MB", "s a step", "s in all", "down MB", "up MB", "J")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("too much")
    for attempt in attempts:
        forecast = attempt.forecast
        table.add_row(
            str(attempt.rank),
            str(attempt.step.micro_batch),
            str(forecast.steps),
            f"{forecast.peak_bytes / 1e6:.0f}",
            f"{forecast.step_seconds:.3g}",
            f"{forecast.seconds:.3g}",
            f"{forecast.download_bytes / 1e6:.2f}",
            f"{forecast.upload_bytes / 1e6:.2f}",
            "unknown" if forecast.joules is None else f"{forecast.joules:.3g}",
            plain(attempt.passes),
        )
    return table
