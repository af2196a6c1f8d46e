"""`hetlora plan`: how a device would train a bundle, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.device_profile import read_profile
from hetlora.cli.folder_option import folder_of
from hetlora.cli.output import JsonFlag
from hetlora.cli.parts import part
from hetlora.cli.plan_telling import Planned, tell
from hetlora.errors import DependencyMissing
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import MOST_TOKENS, CapabilityReport, Offer, TrainingSettings
from hetlora.variants import check_variant

if TYPE_CHECKING:
    from edge_sdk.planning.forecast import Correction

USUAL: Final = TrainingSettings()


def plan(
    bundle: Annotated[Path, typer.Option(help="The folder of the bundle that is to be trained.")],
    variant: Annotated[
        list[Path] | None,
        typer.Option(
            help="The folder of another bundle of the same adapter, as `hetlora run create` names them; "
            "again for each, in their order."
        ),
    ] = None,
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
    half of them; then rank; and last, where the run lets it, tokens of its texts. Of several
    bundles it takes the one that leaves it the longest texts, of these the most ranks, of these the first.

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
        max_tokens=max_tokens or min(opened.manifest.max_tokens, MOST_TOKENS),
        min_tokens=min_tokens,
        upload_precision=upload_precision,
    )
    offer = _offer(opened, training, (min_rank, max_rank), round_seconds)

    def planned(own: Bundle) -> Planned:
        device = _device(own, profile, folder, training)
        if traffic_bytes is not None:
            device = device.model_copy(update={"traffic_bytes_per_round": traffic_bytes})
        known = None if profile is not None else _correction(own, folder, device, threads)
        planner = Planner(device, own.manifest, offer, examples, threads, longest_tokens=longest_tokens)
        return Planned.of(own, planner if known is None else replace(planner, correction=known), known)

    tell([planned(opened), *map(planned, _variants(opened, variant or []))], explain=explain, as_json=as_json)


def _variants(bundle: Bundle, folders: Sequence[Path]) -> list[Bundle]:
    variants = [open_bundle(folder, verify=False) for folder in folders]
    for variant in variants:
        check_variant(bundle.manifest, variant.manifest)
    return variants


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
