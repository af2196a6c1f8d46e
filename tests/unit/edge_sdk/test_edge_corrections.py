"""What real steps took is remembered for a day, for its bundle and its circumstances."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_service import NOW
from ordered_runtime import OrderedRuntime
from strong_device import STRONG

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.freshness import DAY_SECONDS
from edge_sdk.planning.corrections import EVALUATION, Corrections, circumstances_of
from edge_sdk.planning.forecast import Correction
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.runtimes.pytorch import PytorchRuntime
from hetlora.errors import ConditionsUnmet, DeviceTooSmall

MEASURED = Correction(memory=1.25, seconds=0.5, watts=7.5)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[DeviceDatabase]:
    database = DeviceDatabase(tmp_path / "device.sqlite")
    yield database
    database.close()


def at(database: DeviceDatabase, seconds: float = 0.0) -> Corrections:
    return Corrections(database, clock=lambda: NOW + seconds)


def test_correction_is_known_until_its_day_is_over(database: DeviceDatabase) -> None:
    at(database).keep("digest", "1 thread", MEASURED)
    assert at(database, DAY_SECONDS - 1).of("digest", "1 thread") == MEASURED
    assert at(database, DAY_SECONDS).of("digest", "1 thread") is None
    assert at(database, -1).of("digest", "1 thread") is None  # a clock that was set back


def test_correction_says_nothing_of_other_bundles_and_circumstances(database: DeviceDatabase) -> None:
    at(database).keep("digest", "1 thread", MEASURED)
    assert at(database).of("another", "1 thread") is None
    assert at(database).of("digest", "2 threads") is None


def test_newer_correction_takes_the_place_of_the_one_before(database: DeviceDatabase) -> None:
    at(database).keep("digest", "1 thread", MEASURED)
    at(database, 1).keep("digest", "1 thread", Correction(2.0, 3.0))
    assert at(database, 2).of("digest", "1 thread") == Correction(2.0, 3.0, watts=None)


def test_bundles_that_were_left_long_ago_are_forgotten(database: DeviceDatabase) -> None:
    for second in range(70):
        at(database, second).keep(f"digest {second}", "", MEASURED)
    known = [second for second in range(70) if at(database, 70).of(f"digest {second}", "") is not None]
    assert known == [*range(6, 70)]


def test_bundle_whose_trial_ended_with_its_process_is_not_tried_for_an_hour(
    database: DeviceDatabase, tmp_path: Path
) -> None:
    with at(database).trying("digest", "1 thread"):
        shutil.copytree(tmp_path, tmp_path.with_name("as a kill would leave it"))
    left = DeviceDatabase(tmp_path.with_name("as a kill would leave it") / "device.sqlite")
    refused = pytest.raises(
        DeviceTooSmall, match=r"steps of this bundle ended .* with their process; got 3599 s ago"
    )
    with refused, at(left, 3599).trying("digest", "1 thread"):
        pass
    for bundle, circumstances in (("another", "1 thread"), ("digest", "2 threads")):
        with at(left, 3599).trying(bundle, circumstances):
            pass
    left.close()


def test_trial_that_was_cut_off_long_ago_is_made_again(database: DeviceDatabase, tmp_path: Path) -> None:
    with at(database).trying("digest", "1 thread"):
        shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    left = DeviceDatabase(tmp_path.with_name("copy") / "device.sqlite")
    with at(left, 3600).trying("digest", "1 thread"):
        pass
    left.close()


def test_trial_that_fails_or_ends_leaves_the_way_free(database: DeviceDatabase) -> None:
    with pytest.raises(ConditionsUnmet), at(database).trying("digest", "1 thread"):
        raise ConditionsUnmet("this device may not work now")
    for _ in range(2):
        with at(database).trying("digest", "1 thread"):
            pass


def test_trial_that_ended_for_want_of_memory_is_not_made_again_for_an_hour(database: DeviceDatabase) -> None:
    with pytest.raises(MemoryError), at(database).trying("digest", "1 thread"):
        raise MemoryError
    with (
        pytest.raises(DeviceTooSmall, match="ended for want of memory"),
        at(database, 3599).trying("digest", "1 thread"),
    ):
        pass
    with at(database, 3600).trying("digest", "1 thread"):
        pass


def test_steps_under_other_circumstances_leave_the_note_of_these(database: DeviceDatabase) -> None:
    with pytest.raises(MemoryError), at(database).trying("digest", "1 thread"):
        raise MemoryError
    with at(database, 60).trying("digest", EVALUATION):
        pass
    with pytest.raises(DeviceTooSmall, match="got 61 s ago"):
        at(database, 61).check_may_try("digest", "1 thread")


def test_other_cores_threads_or_runtimes_are_other_circumstances() -> None:
    fewer = STRONG.model_copy(update={"cores": 1})
    told = {
        circumstances_of(device, threads, runtime)
        for device in (STRONG, fewer)
        for threads in (None, 1)
        for runtime in (OnnxRuntime, PytorchRuntime, OrderedRuntime())
    }
    assert len(told) == 12
    assert circumstances_of(STRONG, 1, OrderedRuntime()) == circumstances_of(STRONG, 1, OrderedRuntime(1.0))
