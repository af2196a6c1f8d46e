"""One virtual device: what it can do, and what it has been through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from benchmarks.simulation.draws import CAPABILITY, draw, generator
from benchmarks.simulation.fleet_file import DeviceKind, FleetFile
from hetlora.digest import sha256_of
from hetlora.messages.device import CapabilityReport

_MB: Final = 10**6
_PLENTY_BYTES: Final = 10**11


@dataclass(frozen=True, slots=True)
class Machine:
    """What was drawn for a device: rates are bytes a second."""

    capabilities: CapabilityReport
    download_bytes_per_second: float
    upload_bytes_per_second: float
    example_count: int


@dataclass(slots=True)
class VirtualDevice:
    """A device of a kind; `number` is its own in the whole fleet."""

    number: int
    kind: DeviceKind
    machine: Machine
    id: str
    session_end: float = 0.0
    not_before: float = 0.0  # the service asked it to stay away until then
    contact_at: datetime | None = None
    has_bundle: bool = False
    downloaded_bytes: int = 0  # of all that it fetched, whatever became of it
    check_ins: int = 0
    trainings: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def devices_of(fleet: FleetFile) -> Iterator[VirtualDevice]:
    """All devices of a fleet, kind after kind."""
    number = 0
    for kind in fleet.devices:
        for _ in range(kind.count):
            name = f"{fleet.seed}:{number}"
            yield VirtualDevice(
                number, kind, _machine(kind, fleet.seed, number), sha256_of(name.encode())[:32]
            )
            number += 1


def _machine(kind: DeviceKind, seed: int, number: int) -> Machine:
    rng = generator(seed, CAPABILITY, number)
    memory_bytes = round(_MB * draw(rng, kind.memory_available_mb))
    capabilities = CapabilityReport(
        source="given",
        cores=kind.cores,
        memory_total_bytes=2 * memory_bytes,
        memory_available_bytes=memory_bytes,
        matmul_flops_per_second=1e9 * draw(rng, kind.gigaflops_per_core),
        disk_free_bytes=_PLENTY_BYTES,
        traffic_bytes_per_round=(
            None if kind.traffic_mb_per_round is None else round(_MB * kind.traffic_mb_per_round)
        ),
    )
    return Machine(
        capabilities,
        1e6 / 8 * draw(rng, kind.download_mbit_per_second),
        1e6 / 8 * draw(rng, kind.upload_mbit_per_second),
        max(1, round(draw(rng, kind.examples))),
    )
