"""All sources of a probe asked, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edge_sdk.folder import DeviceFolder
from edge_sdk.probe.accelerator import measure_accelerator
from edge_sdk.probe.battery import measure_battery
from edge_sdk.probe.cache import RateCache
from edge_sdk.probe.clock import measure_clock
from edge_sdk.probe.disk import existing, measure_free_disk
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.model_shape import ModelShape
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.processor import measure_processor, usable_cores
from edge_sdk.probe.rates import measure_rates
from edge_sdk.probe.report import Probe
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature, measure_throttling
from hetlora import __version__
from hetlora.messages.device import CapabilityReport


def take_probe(
    folder: Path,
    *,
    shape: ModelShape | None = None,
    cache: RateCache | None = None,
    system: System | None = None,
    clock: Callable[[], float] = time.time,
) -> Probe:
    """Ask a device for all that it tells: in under three seconds, in milliseconds where the rates are known.

    Args:
        folder: where the device folder lies, or would lie: its disk is looked at.
        shape: the model at whose products the processor is tried, too.
        cache: rates that were measured before; None measures all of them.
        system: the machine that is asked; None is this one.
        clock: Unix seconds.
    """
    system = system or System()
    folder = existing(folder)
    processor, cycles = measure_processor(system), measure_clock(system)
    memory, network = measure_memory(system), measure_network(system)
    is_throttled = measure_throttling(system)
    temperature = measure_temperature(system)  # before the bursts, which heat
    # Under any other of these the processor would have other rates.
    limits = (__version__, processor, usable_cores(), cycles and cycles.limit_hz, is_throttled)
    return Probe(
        taken_at=datetime.fromtimestamp(clock(), UTC),
        sdk_version=__version__,
        processor=processor,
        clock=cycles,
        temperature_celsius=temperature,
        is_throttled=is_throttled,
        memory=memory,
        disk_free_bytes=measure_free_disk(folder),
        battery=measure_battery(system),
        network=network,
        accelerator=measure_accelerator(system),
        rates=measure_rates(
            folder,
            system,
            cache or RateCache(),
            circumstances=str(limits),
            shape=shape,
            memory=memory,
            network=network,
        ),
    )


def kept_rates(folder: Path | None, *, fresh: bool = False) -> RateCache:
    """The rates that a device folder keeps, if it is there; `fresh` has them measured again."""
    if folder is None or not folder.is_dir():
        return RateCache(fresh=fresh)
    return RateCache(DeviceFolder(folder).rates_file, fresh=fresh)


def measure_capabilities(
    folder: Path | str, *, shape: ModelShape | None = None, traffic_bytes_per_round: int | None = None
) -> CapabilityReport:
    """What the planner and the service are told of this device, with the rates that its folder keeps.

    Args:
        folder: the device folder, or where it would lie.
        shape: the model that is to be trained, if it is known.
        traffic_bytes_per_round: what adapters may take over the network in a round; nobody can measure that.

    Raises:
        UnavailableError: see `Probe.report`.
    """
    folder = Path(folder)
    probe = take_probe(folder, shape=shape, cache=kept_rates(folder))
    return probe.report(traffic_bytes_per_round=traffic_bytes_per_round)
