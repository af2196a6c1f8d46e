"""A training whose process is killed again and again before it comes any further is given back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from device_tables import stored_parts
from fake_bundle import bundle_on_disk
from mortal_device import live
from rounds_service import RoundsService

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.resuming import MOST_STARTS, counted_start
from hetlora.errors import NoProgress, Stopped
from hetlora.messages.device import TrainingSettings

STEPS = 5
TRAINING = TrainingSettings(steps=STEPS, batch_size=2, learning_rate=0.01, max_tokens=8, pruning_decay=1.0)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RoundsService]:
    with RoundsService(bundle_on_disk(tmp_path / "bundle"), TRAINING) as service:
        yield service


@dataclass
class Device:
    """A device that lives in one process after the other, against one service."""

    service: RoundsService
    folder: DeviceFolder
    log: Path
    processes: ForkServerContext

    def live(self, *, deadly_step: int | None = None) -> bool:
        """One process, of one visit unless the step of this number, counted from its first, kills it first.

        Answers whether it was killed.
        """
        arguments = (self.service.url, self.folder.root, self.log, 0.0, None, 1, deadly_step)
        process = self.processes.Process(target=live, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0

    def lines(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)]

    def kept_steps(self) -> int:
        return max((int(line.split()[1]) for line in self.lines("checkpoint")), default=0)


@pytest.fixture
def device(
    service: RoundsService, folder: DeviceFolder, tmp_path: Path, processes: ForkServerContext
) -> Device:
    (tmp_path / "log").touch()
    return Device(service, folder, tmp_path / "log", processes)


def test_work_is_given_back_after_three_processes_that_were_killed_in_their_first_step(
    service: RoundsService, device: Device
) -> None:
    for _ in range(3):
        assert device.live(deadly_step=1)
    assert service.ended == {}
    assert not device.live(deadly_step=1)  # it does not come to a step
    assert device.log.read_text().splitlines() == [
        *["life", "offered assignment-1"] * 4,
        "visit failed",
    ]
    assert service.ended == {"assignment-1": "failed"}
    assert [failure.code for failure in service.failures] == ["no_progress"]
    assert stored_parts(device.folder) == set()
    # The next assignment is begun as if nothing had been.
    assert not device.live()
    assert service.ended["assignment-2"] == "accepted"


def test_step_that_kills_whenever_it_is_reached_has_the_work_given_back(
    service: RoundsService, device: Device
) -> None:
    lives = 1
    while device.live(deadly_step=4 - device.kept_steps()):
        lives += 1
    # One keeps nothing, one the first two steps, one nothing, one the third; after that are three, and the
    # last. Fewer, where this machine was so slow that a checkpoint was due.
    assert 5 <= lives <= 8
    assert device.lines("resumed")[-3:] == ["resumed 3"] * 3
    assert [failure.code for failure in service.failures] == ["no_progress"]


def test_training_that_comes_a_step_further_in_every_second_process_is_carried_to_its_end(
    service: RoundsService, device: Device, tmp_path: Path
) -> None:
    lives = 1
    while device.live(deadly_step=2):
        lives += 1
    assert STEPS <= lives <= 2 * STEPS - 1
    assert (service.ended, service.failures) == ({"assignment-1": "accepted"}, [])
    with RoundsService(bundle_on_disk(tmp_path / "other"), TRAINING) as other:
        live(other.url, tmp_path / "undisturbed", tmp_path / "other.log", 0.0, visits=1)
    assert service.digests == other.digests


@pytest.fixture
def store(folder: DeviceFolder, service: RoundsService) -> Iterator[AssignmentStore]:
    assert service.offer is not None
    with closing(DeviceDatabase(folder.database)) as database:
        store = AssignmentStore(database)
        store.offered(service.offer)
        yield store


@pytest.mark.parametrize("end", [Stopped("this visit was asked to end"), KeyboardInterrupt(), None])
def test_start_that_ends_before_its_process_is_not_counted(
    store: AssignmentStore, end: BaseException | None
) -> None:
    for _ in range(MOST_STARTS + 1):
        with suppress(Stopped, KeyboardInterrupt), counted_start(store):
            if end is not None:
                raise end
    assert store.starts() == 0


def test_fourth_start_is_refused_and_not_counted(store: AssignmentStore) -> None:
    for _ in range(MOST_STARTS):
        store.count_start()
    with pytest.raises(NoProgress, match="got 3 starts without a checkpoint"), counted_start(store):
        pytest.fail("it was begun")
    assert store.starts() == MOST_STARTS
