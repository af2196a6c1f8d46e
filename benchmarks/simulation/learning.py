"""What a simulated fleet learns: nothing, at the cost of a bundle, or a real task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select

from aggregator_service.aggregation.rules import open_rule
from aggregator_service.artifacts.adapters import read_state
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, RunRow
from benchmarks.rules.simulation import whole
from benchmarks.simulation.fleet_file import FleetFile
from benchmarks.simulation.pools import opened_pool
from benchmarks.simulation.trained_updates import TrainedUpdates
from benchmarks.simulation.updates import StubbedUpdates, Updates
from benchmarks.simulation.virtual_device import VirtualDevice
from benchmarks.tasks.opening import open_task
from edge_sdk.examples import Example
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Learning:
    """A bundle; and where devices train for real, the examples of each and how good an adapter is."""

    bundle: Bundle
    examples: Sequence[Sequence[Example]] = ()
    score: Callable[[Adapter | None], float] | None = None

    def with_examples(self, devices: Iterable[VirtualDevice]) -> list[VirtualDevice]:
        """Devices that hold as many examples as they train on."""
        found = list(devices)
        if self.examples:
            for device, own in zip(found, self.examples, strict=True):
                device.machine = replace(device.machine, example_count=len(own))
        return found

    @contextmanager
    def updates(self, service: Service, fleet: FleetFile) -> Iterator[Updates]:
        """Where this fleet's updates come from."""
        if fleet.training is None:
            yield StubbedUpdates(service, self.bundle.manifest.adapter)
            return
        with opened_pool(fleet.training) as pool:
            yield TrainedUpdates(service, self.bundle, self.examples, fleet.run, pool)

    def scores(self, service: Service, run_id: str, fleet: FleetFile) -> Mapping[int, float]:
        """Of the initial adapter, of every so many rounds, and of the last, by rounds committed."""
        if self.score is None or fleet.training is None:
            return {}
        of_run = select(AdapterVersionRow).where(AdapterVersionRow.run_id == run_id)
        with service.database.read() as session:
            run = session.get_one(RunRow, run_id)
            rows = session.scalars(of_run.order_by(AdapterVersionRow.round_index)).all()
        chosen = [
            row for row in rows if (row.round_index + 1) % fleet.training.score_every == 0 or row is rows[-1]
        ]
        found = {}
        for row in chosen:
            state = read_state(service, run, row)
            shown = open_rule(run.settings.rule, state).distribute(run.settings.max_rank)
            found[row.round_index + 1] = self.score(whole(shown))
        return found


def open_learning(fleet: FleetFile, folder: Path, bundle: Path | None = None) -> Learning:
    """What a fleet file asks for; the bundle of a task is exported into `folder`.

    Args:
        bundle: instead of the file's.

    Raises:
        BundleError: there is no such bundle.
        DataError: the data cannot be read.
        SettingsError: the task has not as many clients as the fleet has devices.
    """
    asked = fleet.training
    if asked is None:
        assert fleet.bundle is not None, "or the file would not be one"
        return Learning(open_bundle(bundle or Path(fleet.bundle), verify=False))
    if bundle is not None:
        raise SettingsError(
            "devices that train have the bundle of their task", got=bundle, expected="no bundle given"
        )
    count = sum(kind.count for kind in fleet.devices)
    task = open_task(asked.task, Path(asked.data), folder, count, fleet.seed)
    if len(task.clients) != count:
        raise SettingsError(
            "devices that train for real", got=f"{count} in the fleet file", expected=f"{len(task.clients)}"
        )
    return Learning(task.bundle, [client.examples for client in task.clients], task.score)
