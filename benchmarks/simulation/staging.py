"""The service of a simulation: its own code on a virtual clock, with a bundle, a fleet and a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy import insert

from aggregator_service.artifacts.publishing import publish
from aggregator_service.devices.populations import create_population
from aggregator_service.rounds.runs import change_run, create_run
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import DeviceRow
from benchmarks.simulation.fleet_file import FleetFile
from benchmarks.simulation.virtual_clock import VirtualClock
from benchmarks.simulation.virtual_device import VirtualDevice
from hetlora.bundle import Bundle
from hetlora.manifest import MANIFEST_NAME
from hetlora.messages.fleet import PopulationCreate
from hetlora.messages.management import RunCreate
from hetlora.states import DeviceState

POPULATION: Final = "fleet"
_AT_A_TIME: Final = 5000


@contextmanager
def opened_service(fleet: FleetFile, folder: Path, clock: VirtualClock) -> Iterator[Service]:
    """A service whose files are in `folder`; nobody else asks it."""
    asked = fleet.service.model_dump()
    service = open_service(Settings(data_dir=folder, **asked), clock)
    try:
        yield service
    finally:
        service.close()


def started_run(service: Service, fleet: FleetFile, bundle: Bundle) -> str:
    """Publish the bundle, create population and run, start it, and answer its id."""
    create_population(service, PopulationCreate(name=POPULATION))
    for path in (MANIFEST_NAME, *bundle.manifest.files):
        service.objects.put((bundle.folder / path).read_bytes())
    publish(service, bundle.digest)
    run_id = create_run(service, RunCreate(population=POPULATION, bundle=bundle.digest, settings=fleet.run))
    change_run(service, run_id, "start")
    return run_id


def admit(service: Service, devices: Iterable[VirtualDevice]) -> None:
    """Enrol devices as if they had done it, but all at once: it is not what is simulated."""
    left = iter(devices)
    while some := list(islice(left, _AT_A_TIME)):
        with service.database.write() as session:
            session.execute(insert(DeviceRow), [_row(device) for device in some])


def _row(device: VirtualDevice) -> dict[str, object]:
    return {
        "id": device.id,
        "state": DeviceState.ACCEPTED,
        "reason": "simulated",
        "population": POPULATION,
        "public_key": device.id,
        "name": f"{device.kind.name}-{device.number}",
        "capabilities": device.machine.capabilities,
    }
