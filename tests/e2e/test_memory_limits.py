"""Devices that the kernel refuses memory beyond a limit: they plan within it, or decline, and none fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from e2e_fleet import TinyFleet, wait_until

from benchmarks.fleet import POPULATION
from benchmarks.processes import COMMAND
from edge_sdk.adapters.files import AdapterFiles
from hetlora.bundle import Bundle
from hetlora.errors import DeviceTooSmall
from hetlora.messages.management import RunStatus
from hetlora.states import is_final

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of memory"),
]

MIB: Final = 2**20
LIMITS: Final = (512 * MIB, 1024 * MIB, 2048 * MIB)
# 88 KiB of float32 for each rank: six copies of an adapter of rank 512 alone are 264 MiB.
MAX_RANK: Final = 512
SMALL: Final = {"steps": 2, "batch_size": 8, "max_tokens": 64}  # forecast: 190 MiB at rank 1, 634 at 512
LARGE: Final = {"steps": 2, "batch_size": 16, "max_tokens": 128}  # forecast: 374 MiB at rank 1


@dataclass(frozen=True, slots=True)
class Visited:
    """What a device's one visit came to."""

    exit_status: int
    told: dict[str, Any]
    limit_bytes: int

    @property
    def trained_within_its_limit(self) -> bool:
        """Whether its update was taken, and its memory at the peak was below the limit."""
        report = self.told["report"]
        return (self.exit_status, self.told["outcome"]) == (0, "accepted") and (
            0 < report["peak_memory_bytes"] < self.limit_bytes
        )

    @property
    def declined_for_memory(self) -> bool:
        """Whether it gave the offer back before it took anything, and said what it lacks."""
        return (
            (self.exit_status, self.told["code"]) == (5, DeviceTooSmall.code)
            and self.told["report"] is None
            and "memory" in self.told["reason"]
        )


@pytest.fixture(scope="module")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An encoder of four layers and 512 features with ranks that weigh: LoRA on five modules a layer."""
    from tiny_model import write_tiny_model

    from export.bundle_writer import export_bundle

    folder = tmp_path_factory.mktemp("wide")
    return export_bundle(
        str(write_tiny_model(folder / "model", hidden=512, layers=4, positions=128)),
        folder / "bundle",
        labels=["weather", "food", "sport"],
        targets=["query", "key", "value", "attention.output.dense", "intermediate.dense"],
        max_rank=MAX_RANK,
        max_tokens=LARGE["max_tokens"],
    )


@pytest.fixture(scope="module")
def wide_fleet(tmp_path_factory: pytest.TempPathFactory, wide_bundle: Bundle) -> Iterator[TinyFleet]:
    with TinyFleet(tmp_path_factory.mktemp("fleet"), wide_bundle) as fleet:
        yield fleet


@pytest.fixture
def start_run(wide_fleet: TinyFleet) -> Iterator[Callable[..., RunStatus]]:
    """Starts a run that takes three updates; whatever it has by then, it ends with the test."""
    runs: list[RunStatus] = []

    def start(training: dict[str, int], **settings: int) -> RunStatus:
        usual = {"rounds": 1, "goal_count": 3, "min_rank": 4}
        runs.append(wide_fleet.start_run(training=training, **(usual | settings)))
        return runs[-1]

    yield start
    for run in runs:
        if not is_final(wide_fleet.operator.run(run.run_id).state):
            wide_fleet.operator.move_run(run.run_id, "stop")


def new_device(fleet: TinyFleet) -> Path:
    """The folder of a device that nobody knows yet."""
    folder = fleet.work / f"device-{len(list(fleet.work.iterdir()))}"
    folder.mkdir()
    return folder


def visit(
    fleet: TinyFleet,
    limit_bytes: int,
    kind: str = "data",
    *,
    folder: Path | None = None,
    options: Sequence[str] = (),
) -> Visited:
    """One visit of a device whose process may have so much; it measures itself what that leaves it."""
    folder = folder or new_device(fleet)
    # 150 words each: longer than any batch.
    rows = [("snow rain sun wind bread " * 30, label) for label in fleet.bundle.manifest.labels * 6]
    examples = folder / "rows.json"
    examples.write_text(json.dumps(rows))
    command = ["prlimit", f"--{kind}={limit_bytes}", *COMMAND, "device", "run", "--once", "--json"]
    command += ["--url", fleet.service.url, "--population", POPULATION, "--threads", "1"]
    command += ["--folder", str(folder / "device"), "--examples", str(examples), *options]
    done = subprocess.run(
        command,
        env={**os.environ, "HETLORA_ENROLMENT_TOKEN": fleet.enrolment_token},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout, f"exit status {done.returncode}: {done.stderr}"  # negative where it was killed
    return Visited(done.returncode, json.loads(done.stdout.splitlines()[-1]), limit_bytes)


def test_rank_follows_the_limit(wide_fleet: TinyFleet, start_run: Callable[..., RunStatus]) -> None:
    start_run(SMALL)

    visits = [visit(wide_fleet, limit) for limit in LIMITS]

    assert [one.trained_within_its_limit for one in visits] == [True, True, True]
    ranks = [one.told["rank"] for one in visits]
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1] == MAX_RANK


def test_batch_too_large_for_a_limit_is_cut_or_declined(
    wide_fleet: TinyFleet, start_run: Callable[..., RunStatus]
) -> None:
    start_run(LARGE)

    visits = [visit(wide_fleet, limit) for limit in LIMITS]

    assert visits[0].trained_within_its_limit or visits[0].declined_for_memory
    assert [one.trained_within_its_limit for one in visits[1:]] == [True, True]


def test_device_without_room_for_the_lowest_rank_declines_with_a_reason(
    wide_fleet: TinyFleet, start_run: Callable[..., RunStatus]
) -> None:
    start_run(SMALL, min_rank=MAX_RANK)

    assert visit(wide_fleet, LIMITS[0]).declined_for_memory
    assert visit(wide_fleet, LIMITS[-1]).trained_within_its_limit


@pytest.mark.parametrize("training", [SMALL, LARGE], ids=["small", "large"])
def test_device_of_few_addresses_is_never_refused_one(
    wide_fleet: TinyFleet, start_run: Callable[..., RunStatus], training: dict[str, int]
) -> None:
    # Libraries, mapped files and all that is reserved count, too: 225 MiB before anything is trained.
    start_run(training)

    visits = [visit(wide_fleet, limit, "as") for limit in LIMITS]

    assert visits[0].trained_within_its_limit or visits[0].declined_for_memory
    assert [one.trained_within_its_limit for one in visits[1:]] == [True, True]


def test_adapters_are_compared_in_the_memory_that_training_was_planned_for(
    wide_fleet: TinyFleet, start_run: Callable[..., RunStatus]
) -> None:
    # All that is held out goes into one batch of the run, and the few examples to train on do not.
    run = start_run({"steps": 2, "batch_size": 256, "max_tokens": 128}, rounds=2, goal_count=1, max_rank=4)
    folder = new_device(wide_fleet)
    held_out = folder / "held_out.json"
    held_out.write_text(json.dumps([(f"wind {number} " * 90, "weather") for number in range(200)]))
    options = ["--held-out", str(held_out), "--adopt", "if_not_worse"]

    def round_of(number: int) -> Visited:
        done = visit(wide_fleet, LIMITS[0], folder=folder, options=options)
        wait_until(lambda: wide_fleet.operator.run(run.run_id).rounds_committed == number, f"round {number}")
        return done

    visits = [round_of(1), round_of(2)]

    assert [one.trained_within_its_limit for one in visits] == [True, True]
    index = AdapterFiles(folder / "device" / "adapters").index()
    report = index.last_comparison
    assert report is not None
    assert (report.new.round_index, report.new.micro_batch <= 18) == (1, True)
    assert report.new_held_out is not None, report.reason
    assert report.in_use_held_out is not None, report.reason
    assert report.new_held_out.example_count == report.in_use_held_out.example_count == 200
