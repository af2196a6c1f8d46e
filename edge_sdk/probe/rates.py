"""The rates of a device: measured, or recalled where they were measured under the same circumstances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_sdk.probe.bandwidth import measure_bandwidth
from edge_sdk.probe.cache import KeptRate, RateCache
from edge_sdk.probe.disk import measure_write_rate
from edge_sdk.probe.matmul import measure_matmul, measure_model_matmul
from edge_sdk.probe.memory import Memory
from edge_sdk.probe.model_shape import ModelShape
from edge_sdk.probe.system import System

_DOWNLOAD: Final = "download"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does in a second; None is unknown.

    Products are of float32 on one core: `matmul` of the same ones on every device, `model_matmul` of those of
    the model that was asked about. Bandwidth is one core's, too. `oldest_age_seconds` is how long ago the
    first of these was measured; `download` is what the newest long download had, whenever that was.
    """

    matmul_flops_per_second: float | None
    model_matmul_flops_per_second: float | None
    memory_bandwidth_bytes_per_second: float | None
    disk_write_bytes_per_second: float | None
    download_bytes_per_second: float | None
    oldest_age_seconds: float | None


def measure_rates(
    folder: Path,
    system: System,
    cache: RateCache,
    *,
    circumstances: str,
    shape: ModelShape | None,
    memory: Memory | None,
    network: str | None,
) -> Rates:
    """All rates, in two seconds where the cache has none; `circumstances` are those of the processor."""
    available_bytes = None if memory is None else memory.available_bytes
    matmul = cache.rate("matmul", circumstances, measure_matmul)
    model_matmul = (
        None
        if shape is None
        else cache.rate("model_matmul", f"{circumstances}, {shape}", lambda: measure_model_matmul(shape))
    )
    bandwidth = cache.rate(
        "memory_bandwidth", circumstances, lambda: measure_bandwidth(system, available_bytes)
    )
    disk_write = cache.rate("disk_write", str(folder.stat().st_dev), lambda: measure_write_rate(folder))
    ages = [kept.age_seconds for kept in (matmul, model_matmul, bandwidth, disk_write) if kept]
    return Rates(
        _per_second(matmul),
        _per_second(model_matmul),
        _per_second(bandwidth),
        _per_second(disk_write),
        download_rate(cache, network),
        max(ages, default=None),
    )


def keep_download_rate(cache: RateCache, network: str | None, bytes_per_second: float) -> None:
    """Remember how fast a long download came, for as long as the device stays on this kind of network."""
    cache.keep(_DOWNLOAD, str(network), bytes_per_second)


def download_rate(cache: RateCache, network: str | None) -> float | None:
    """What the newest long download over this kind of network had, if that is not too long ago."""
    return _per_second(cache.recall(_DOWNLOAD, str(network)))


def _per_second(kept: KeptRate | None) -> float | None:
    return None if kept is None else kept.per_second
