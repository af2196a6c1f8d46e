"""A campaign from its first check-in to its last round, as fast as the machine can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from aggregator_service.service import Service
from aggregator_service.storage.tables import RunRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from benchmarks.simulation.fleet_file import FleetFile
from benchmarks.simulation.learning import Learning
from benchmarks.simulation.outcome import Outcome, outcome_of
from benchmarks.simulation.sessions import DAY, HOUR, sessions
from benchmarks.simulation.staging import admit, opened_service, started_run
from benchmarks.simulation.virtual_clock import VirtualClock
from benchmarks.simulation.virtual_device import devices_of
from benchmarks.simulation.visits import Visits
from hetlora.states import RunState

# Rounds committed, and hours of the simulation.
Progress = Callable[[int, float], None]
_ENDED: Final = (RunState.COMPLETED, RunState.STOPPED, RunState.FAILED)


def simulate(fleet: FleetFile, learning: Learning, folder: Path, progress: Progress) -> Outcome:
    """Run the fleet's campaign; `folder` holds the service's files, an empty one.

    The same file gives the same outcome on the same machine.

    Raises:
        SettingsError, RankOutOfRange: the run's settings do not fit the bundle.
    """
    clock = VirtualClock()
    with opened_service(fleet, folder, clock) as service, learning.updates(service, fleet) as updates:
        run_id = started_run(service, fleet, learning.bundle)
        devices = learning.with_examples(devices_of(fleet))
        admit(service, devices)
        visits = Visits(service, clock, learning.bundle, fleet.seed, updates)
        for device in devices:
            visits.live(device, sessions(fleet.availability, fleet.seed, device.number))
        worker = _VirtualWorker(service, clock, fleet.tick_seconds, run_id, progress)
        while not worker.is_done and clock.seconds < fleet.days * DAY and clock.step():
            worker.look_if_woken()
        return outcome_of(service, run_id, devices, learning.scores(service, run_id, fleet))


class _VirtualWorker:
    """The service's round worker: at its intervals, and at once when it is woken."""

    def __init__(
        self, service: Service, clock: VirtualClock, seconds: float, run_id: str, progress: Progress
    ) -> None:
        self._service, self._clock, self._seconds = service, clock, seconds
        self._run_id, self._progress = run_id, progress
        self.is_done = False
        clock.after(seconds, self._look_again)
        clock.after(HOUR, self._sweep)

    def look_if_woken(self) -> None:
        if self._service.wake.is_set():
            self._service.wake.clear()
            self._look()

    def _look(self) -> None:
        tick(self._service)
        with self._service.database.read() as session:
            run = session.get_one(RunRow, self._run_id)
        self.is_done = run.state in _ENDED
        self._progress(run.rounds_committed, self._clock.seconds / HOUR)

    def _look_again(self) -> None:
        self._look()
        self._clock.after(self._seconds, self._look_again)

    def _sweep(self) -> None:
        sweep(self._service)
        self._clock.after(HOUR, self._sweep)
