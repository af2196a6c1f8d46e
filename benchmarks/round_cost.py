"""Rounds of a real service and real device processes, and what each of them spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from benchmarks.bundle_bytes import bundle_bytes
from benchmarks.demo.profiles import PROFILES
from benchmarks.fleet import POPULATION, DeviceSetup, Fleet
from benchmarks.processes import Process
from edge_sdk.examples import Example
from edge_sdk.runtimes import files_opened_by, runtime_for
from hetlora.bundle import Bundle
from hetlora.cli.operator import Operator
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import AssignmentStatus, RoundStatus, RunCreate, RunSettings
from hetlora.states import AssignmentState, RoundState

EXAMPLES_PER_DEVICE: Final = 64
# So long that no forecast of time lowers a rank: the machine is the same for all the devices.
LEASE_SECONDS: Final = 3600.0
REPORT_WINDOW_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Setup:
    """What is run; `threads` of each device."""

    devices: int
    rounds: int
    training: TrainingSettings
    threads: int
    seed: int


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One committed round, bytes over all devices; `training_share` is the slowest device's training."""

    round_index: int
    seconds: float
    training_share: float
    downloaded_bytes: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """One device in one round."""

    round_index: int
    device: str
    rank: int
    training_seconds: float
    bundle_downloaded_bytes: int
    adapter_downloaded_bytes: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process: peak resident memory since its start, processor seconds while the run lasted."""

    process: str
    peak_rss_bytes: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class RoundCost:
    """All figures of one run."""

    rounds: list[RoundRow]
    assignments: list[AssignmentRow]
    processes: list[ProcessRow]


def measure_rounds(
    bundle: Bundle,
    setup: Setup,
    passages: Sequence[Example],
    work: Path,
    *,
    progress: Callable[[str], None],
) -> RoundCost:
    """Start service and devices, run the rounds, and read the figures before anything is stopped.

    Raises:
        ServiceFailed: a process died, or the run did not complete.
    """
    progress(f"starting a service and {setup.devices} devices")
    with Fleet(work, bundle) as fleet:
        for device in _devices(bundle, setup, passages):
            fleet.start_device(device, threads=setup.threads)
        _await_devices(fleet, setup.devices)
        processes = {"service": fleet.service, **fleet.devices}
        before = {name: _cpu_seconds(process) for name, process in processes.items()}
        run_id = _start_run(fleet.operator, bundle, setup)
        fleet.await_end(run_id, lambda committed: progress(f"round {committed} of {setup.rounds} committed"))
        spent = [
            ProcessRow(name, process.peak_rss_bytes(), round(_cpu_seconds(process) - before[name], 2))
            for name, process in processes.items()
        ]
        rounds, assignments = list(fleet.operator.rounds(run_id)), list(fleet.operator.assignments(run_id))
    accepted = sorted(
        (status for status in assignments if status.state is AssignmentState.ACCEPTED),
        key=lambda status: (status.round_index, status.device_name),
    )
    fetched = bundle_bytes(bundle, files_opened_by(runtime_for(bundle.manifest), bundle.manifest))
    return RoundCost(
        [_round_row(status, accepted) for status in rounds if status.state is RoundState.COMMITTED],
        [_assignment_row(status, fetched) for status in accepted],
        spent,
    )


def _devices(bundle: Bundle, setup: Setup, passages: Sequence[Example]) -> list[DeviceSetup]:
    rng = np.random.default_rng(setup.seed)
    labels, kinds = bundle.manifest.labels, list(PROFILES.items())
    devices = []
    for index in range(setup.devices):
        kind, capabilities = kinds[index % len(kinds)]
        drawn = [passages[position] for position in rng.integers(len(passages), size=EXAMPLES_PER_DEVICE)]
        # A bundle of other labels gets them in turn: what a round costs does not depend on them.
        rows = [
            (passage.text, passage.label if passage.label in labels else labels[position % len(labels)])
            for position, passage in enumerate(drawn)
        ]
        devices.append(DeviceSetup(f"{kind}-{index + 1}", capabilities, rows))
    return devices


def _start_run(operator: Operator, bundle: Bundle, setup: Setup) -> str:
    settings = RunSettings(
        rounds=setup.rounds,
        goal_count=setup.devices,
        over_selection=1.0,
        minimum_share=1.0,
        report_window_seconds=REPORT_WINDOW_SECONDS,
        lease_seconds=LEASE_SECONDS,
        max_rank=bundle.manifest.adapter.max_rank,
        seed=setup.seed,
        training=setup.training,
    )
    run = operator.create_run(RunCreate(population=POPULATION, bundle=bundle.digest, settings=settings))
    return operator.move_run(run.run_id, "start").run_id


def _await_devices(fleet: Fleet, count: int) -> None:
    while sum(device.last_contact_at is not None for device in fleet.operator.devices(POPULATION)) < count:
        fleet.check()
        time.sleep(_POLL_SECONDS)


def _cpu_seconds(process: Process) -> float:
    assert process.popen is not None
    times = psutil.Process(process.popen.pid).cpu_times()
    return float(times.user + times.system)


def _round_row(status: RoundStatus, accepted: Sequence[AssignmentStatus]) -> RoundRow:
    assert status.ended_at is not None
    seconds = (status.ended_at - status.started_at).total_seconds()
    mine = [one for one in accepted if one.round_index == status.round_index]
    return RoundRow(
        status.round_index,
        round(seconds, 3),
        round(max(one.training_seconds or 0.0 for one in mine) / seconds, 3),
        sum(one.downloaded_bytes or 0 for one in mine),
        sum(one.uploaded_bytes or 0 for one in mine),
    )


def _assignment_row(status: AssignmentStatus, bundle_size_bytes: int) -> AssignmentRow:
    bundle_part = bundle_size_bytes if status.round_index == 0 else 0
    return AssignmentRow(
        status.round_index,
        status.device_name,
        status.rank or 0,
        round(status.training_seconds or 0.0, 3),
        bundle_part,
        (status.downloaded_bytes or 0) - bundle_part,
        status.uploaded_bytes or 0,
    )
