"""A device that is killed at random moments, over rounds of a service on this machine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from device_tables import stored_parts
from fake_bundle import bundle_on_disk
from mortal_device import live
from rounds_service import RoundsService

from edge_sdk.adapters.files import AdapterFiles
from edge_sdk.folder import DeviceFolder, open_folder
from hetlora.errors import NoProgress
from hetlora.messages.device import TrainingSettings

STEPS = 60
STEP_SECONDS = 0.01
LONGEST_LIFE_SECONDS = 1.2  # a round takes two thirds of a second, and a first checkpoint half of that
TRAINING = TrainingSettings(steps=STEPS, batch_size=2, learning_rate=0.01, max_tokens=8, pruning_decay=1.0)


@dataclass
class Life:
    """What one process did for one assignment, from its offer on."""

    assignment_id: str
    resumed: int = 0
    steps: list[int] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RoundsService]:
    with RoundsService(bundle_on_disk(tmp_path / "bundle"), TRAINING) as service:
        yield service


def killed_at_random(
    service: RoundsService, folder: Path, log: Path, processes: ForkServerContext, kills: int
) -> None:
    rng = random.Random(kills)
    for _ in range(kills):
        service.expires = rng.random() < 0.1
        begun = processes.Event()
        process = processes.Process(target=live, args=(service.url, folder, log, STEP_SECONDS, begun))
        process.start()
        assert begun.wait(60)
        process.join(rng.uniform(0.0, LONGEST_LIFE_SECONDS))
        assert process.is_alive()  # it ends by no fault of its own
        process.kill()
        process.join()
    service.expires = False
    process = processes.Process(target=live, args=(service.url, folder, log, STEP_SECONDS, None, 2))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def lives_in(log: Path) -> Iterator[Life]:
    life: Life | None = None
    for line in log.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "offered":
            life = Life(rest)
            yield life
        elif life is not None and word == "resumed":
            life.resumed = int(rest)
        elif life is not None and word == "step":
            life.steps.append(int(rest))
        elif life is not None and word == "checkpoint":
            life.checkpoints.append(int(rest))


def check_goes_on_from_the_last_checkpoint(lives: list[Life]) -> None:
    last: dict[str, int] = {}
    for life in lives:
        if life.steps:
            # A kill may have come after a checkpoint was written and before the log said so.
            assert life.resumed >= last.get(life.assignment_id, 0)
            assert life.steps == list(range(life.resumed + 1, life.resumed + 1 + len(life.steps)))
        last[life.assignment_id] = max([last.get(life.assignment_id, 0), life.resumed, *life.checkpoints])


def check_only_work_without_a_checkpoint_was_given_back(service: RoundsService, lives: list[Life]) -> None:
    given_back = [assignment_id for assignment_id, how in service.ended.items() if how == "failed"]
    assert [failure.code for failure in service.failures] == [NoProgress.code] * len(given_back)
    for assignment_id in given_back:
        *_, first, second, third, last = (life for life in lives if life.assignment_id == assignment_id)
        assert not any(life.checkpoints for life in (first, second, third, last))
        assert last.steps == []


def check_updates_are_undisturbed(service: RoundsService, tmp_path: Path) -> None:
    """Each is, bit for bit, what a device makes of the same plan that nothing happens to."""
    with RoundsService(bundle_on_disk(tmp_path / "again"), TRAINING) as other:
        visits = len(service.ended)
        live(other.url, tmp_path / "undisturbed", tmp_path / "other.log", 0.0, None, visits)
        assert service.digests.items() <= other.digests.items()


def check_nothing_is_left_over(folder: DeviceFolder) -> None:
    assert {path.name for path in folder.root.iterdir()} == {
        *("device.sqlite", "examples.sqlite", "held_out.sqlite", "lock"),
        *("adapters", "bundles", "downloads"),
    }
    assert [*folder.downloads.iterdir()] == []
    index = AdapterFiles(folder.adapters).index()
    assert {path.name for path in folder.adapters.iterdir()} == {
        *(f"{digest}.safetensors" for digest in index.file_digests()),
        *("index.json", "lock"),
    }
    assert stored_parts(folder) == set()


def survives(service: RoundsService, tmp_path: Path, processes: ForkServerContext, kills: int) -> list[Life]:
    log = tmp_path / "log"
    killed_at_random(service, tmp_path / "device", log, processes, kills)
    lives = list(lives_in(log))
    assert set(service.ended.values()) <= {"accepted", "expired", "failed"}
    check_only_work_without_a_checkpoint_was_given_back(service, lives)
    check_goes_on_from_the_last_checkpoint(lives)
    check_updates_are_undisturbed(service, tmp_path)
    check_nothing_is_left_over(open_folder(tmp_path / "device"))
    return lives


def test_device_killed_ten_times_goes_on_each_time(
    service: RoundsService, tmp_path: Path, processes: ForkServerContext
) -> None:
    survives(service, tmp_path, processes, kills=10)


@pytest.mark.slow
def test_device_killed_hundreds_of_times_loses_no_round_and_no_more_than_the_steps_since_a_checkpoint(
    service: RoundsService, tmp_path: Path, processes: ForkServerContext
) -> None:
    kills = 250
    lives = survives(service, tmp_path, processes, kills)
    assert any(life.resumed for life in lives)
    intervals = [
        after - before
        for life in lives
        for before, after in zip([life.resumed, *life.checkpoints], life.checkpoints, strict=False)
    ]
    trained, asked = sum(len(life.steps) for life in lives), STEPS * len(service.ended)
    outcomes = Counter(service.ended.values())
    resumed = sum(life.resumed > 0 for life in lives)
    print(f"{kills} kills, {outcomes}, {resumed} resumed, {trained} steps of {asked}, {max(intervals)} apart")
    assert trained <= asked + kills * max(intervals)
