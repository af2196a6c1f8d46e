"""`hetlora probe`: what this machine can do, as far as it tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hetlora.bundle import open_bundle
from hetlora.cli.folder_option import folder_of
from hetlora.cli.output import JsonFlag, plain, print_json, stdout
from hetlora.cli.parts import part
from hetlora.messages.device import CapabilityReport, TrainingSettings

if TYPE_CHECKING:
    from edge_sdk.probe import ModelShape, Probe
    from edge_sdk.probe.battery import Battery
    from edge_sdk.probe.clock import Clock
    from edge_sdk.probe.memory import Memory
    from edge_sdk.probe.processor import Processor
    from edge_sdk.probe.rates import Rates

UNKNOWN = "unknown"


def probe(
    folder: Annotated[
        Path | None,
        typer.Option(
            parser=folder_of,
            metavar="<path>",
            help="A device folder: its disk is measured, and rates are kept in it for a day.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="A bundle's folder: the processor is tried at the shapes of this model, too."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Only what the service is told, and `--profile` takes.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure rates again that the device folder has.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure what this machine can do, in under three seconds; what it does not tell is unknown.

    Example: `hetlora probe --report --json > board.json`, for `hetlora plan --profile board.json` elsewhere
    """
    with part("edge"):
        from edge_sdk.probe import kept_rates, take_probe
    found = take_probe(
        folder or Path(),
        shape=None if bundle is None else _shape(bundle),
        cache=kept_rates(folder, fresh=fresh),
    )
    told = found.report() if report else None
    if as_json:
        print_json(told or found)
        return
    table = Table("what", "measured", title="Probe" if told is None else "Report", title_justify="left")
    for what, measured in rows_of(found) if told is None else rows_of_report(told):
        table.add_row(what, plain(measured))
    stdout.print(table)


def _shape(bundle: Path) -> ModelShape:
    """Of steps as they are in a run that sets nothing else."""
    from edge_sdk.probe import ModelShape

    usual = TrainingSettings()
    manifest = open_bundle(bundle, verify=False).manifest
    return ModelShape.of(manifest, batch=usual.batch_size, tokens=usual.max_tokens)


def rows_of(found: Probe) -> Iterator[tuple[str, str]]:
    """What is known of a device and in which words, one thing after the other."""
    yield from _processor(found.processor)
    yield "clock", UNKNOWN if found.clock is None else _clock(found.clock)
    yield "temperature", _scaled(found.temperature_celsius, 1, "°C")
    yield "throttled", _yes_no(found.is_throttled)
    yield "memory", UNKNOWN if found.memory is None else _memory(found.memory)
    yield "disk", _scaled(found.disk_free_bytes, 1e9, "GB free")
    yield from _battery(found.battery)
    yield "network", found.network or UNKNOWN
    told = found.accelerator
    yield "accelerator", UNKNOWN if told is None else _joined(told.kind, told.name)
    yield from _rates(found.rates)


def rows_of_report(report: CapabilityReport) -> Iterator[tuple[str, str]]:
    """What the service is told, named as it is told it; what is unknown is left out of that."""
    for name, value in report.model_dump().items():
        if value is None:
            yield name.replace("_", " "), "no limit"  # of traffic
        else:
            yield name.replace("_", " "), value if isinstance(value, str) else f"{value:,.0f}"


def _processor(processor: Processor | None) -> Iterator[tuple[str, str]]:
    if processor is None:
        yield "processor", UNKNOWN
        return
    yield "processor", _joined(processor.name, processor.architecture)
    yield "instruction sets", _joined(*processor.instruction_sets or ())
    quota = processor.quota_cores
    yield "cores", f"{processor.cores}" + ("" if quota is None else f", for {quota:g} cores' time")


def _memory(memory: Memory) -> str:
    return f"{memory.available_bytes / 1e9:.1f} of {memory.total_bytes / 1e9:.1f} GB free"


def _battery(battery: Battery | None) -> Iterator[tuple[str, str]]:
    if battery is None:
        yield "battery", UNKNOWN
        return
    yield "battery", "none" if battery.percent is None else _scaled(battery.percent, 1, "%")
    yield "charging", _yes_no(battery.is_charging)
    yield "external power", _yes_no(battery.is_on_external_power)


def _rates(rates: Rates) -> Iterator[tuple[str, str]]:
    yield "products of one core", _scaled(rates.matmul_flops_per_second, 1e9, "GFLOP/s in float32")
    if rates.model_matmul_flops_per_second is not None:
        yield "the model's products", _scaled(rates.model_matmul_flops_per_second, 1e9, "GFLOP/s in float32")
    yield "memory bandwidth", _scaled(rates.memory_bandwidth_bytes_per_second, 1e9, "GB/s")
    yield "disk writes", _scaled(rates.disk_write_bytes_per_second, 1e6, "MB/s")
    yield "downloads", _scaled(rates.download_bytes_per_second, 1e6, "MB/s")
    if rates.oldest_age_seconds:
        yield "rates measured", f"up to {rates.oldest_age_seconds / 3600:.1f} h ago"


def _clock(clock: Clock) -> str:
    now, limit, most = (_scaled(hertz, 1e9, "GHz") for hertz in (clock.now_hz, clock.limit_hz, clock.most_hz))
    return f"{now} now, {limit} allowed, {most} at most"


def _scaled(value: float | None, unit: float, words: str) -> str:
    return UNKNOWN if value is None else f"{value / unit:.1f} {words}"


def _yes_no(value: bool | None) -> str:
    return UNKNOWN if value is None else "yes" if value else "no"


def _joined(*words: str | None) -> str:
    return ", ".join(word for word in words if word) or UNKNOWN
