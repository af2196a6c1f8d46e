"""Steps without a pause, micro-batches, and rounds by EdgeFlowerTune's metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.bench_device import app
from benchmarks.device.federated_round import aggregation_seconds
from benchmarks.device.micro_batches import parts_of
from benchmarks.device.plot import draw
from benchmarks.device.round_process import Diary
from benchmarks.device.sampling import Sampler
from benchmarks.device.sustained import sustained_row
from edge_sdk.events import Downloaded, StepDone, Uploaded
from edge_sdk.probe.system import System
from hetlora.bundle import Bundle
from hetlora.errors import SettingsError


def sample(at: float, celsius: float | None, is_throttled: bool | None = None) -> dict[str, Any]:
    return {
        "at": at,
        "rss_bytes": 1,
        "watts": None,
        "celsius": celsius,
        "is_throttled": is_throttled,
        "clock_hz": None,
    }


def test_drift_is_the_last_tenth_over_the_first_and_energy_that_of_a_middle_step() -> None:
    """Ten seconds in ten windows: steps of 0.5 s in the first nine, then one of 1 s."""
    steps = [(0.5 * number, 0.5) for number in range(1, 19)] + [(10.0, 1.0)]
    samples = [sample(0.5, 50.0, is_throttled=False), sample(9.5, 71.0, is_throttled=True)]

    row = sustained_row("m", 8, "8x64", {"steps": steps, "samples": samples, "watts": 6.0})

    assert (row.steps, row.drift, row.joules_per_step) == (19, 1.0, 3.0)
    assert (row.celsius_first, row.celsius_last) == (50.0, 71.0)
    assert [window.steps for window in row.windows] == [2] * 9 + [1]
    assert (row.windows[0].throttled_share, row.windows[-1].throttled_share) == (0.0, 1.0)
    assert row.windows[4].celsius is None


def test_what_no_sensor_tells_is_unknown() -> None:
    row = sustained_row("m", 8, "8x64", {"steps": [(1.0, 1.0)], "samples": [], "watts": None})

    assert (row.drift, row.watts, row.joules_per_step, row.celsius_last) == (None,) * 4


def test_sampler_reads_the_boards_own_sensors(tmp_path: Path) -> None:
    """A Jetson's rail of 5 V at 1.2 A; a processor of 61.5 degrees that heat slows down."""
    files = {
        "sys/class/hwmon/hwmon3/in1_label": "VDD_IN",
        "sys/class/hwmon/hwmon3/in1_input": "5000",
        "sys/class/hwmon/hwmon3/curr1_input": "1200",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": "61500",
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
        "sys/class/thermal/cooling_device0/cur_state": "2",
    }
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value)

    with Sampler(0.01, System(sys=tmp_path / "sys", proc=tmp_path / "proc")) as sampler:
        pass

    assert sampler.watts() == pytest.approx(6.0)
    assert {(own.celsius, own.is_throttled) for own in sampler.samples} == {(61.5, True)}
    assert len(sampler.samples) >= 2
    assert min(own.rss_bytes for own in sampler.samples) > 10_000_000


def test_parts_of_a_batch_are_halved_while_they_are_whole() -> None:
    assert parts_of(8) == [8, 4, 2, 1]
    assert parts_of(6) == [6, 3]


def test_bundle_is_no_download_of_a_round_and_opening_the_runtime_no_step() -> None:
    """Two steps that the trainer says took a second together; the events tell of the second alone."""
    diary = Diary()
    for event in (
        Downloaded("base.safetensors", 90_000),
        Downloaded("global adapter", 3_000),
        StepDone(1, 2, 0.5),
        StepDone(2, 2, 0.5),
        Uploaded(2_000),
    ):
        diary.note(event)

    first, second = diary.step_seconds(1.0)
    assert (diary.download_bytes, diary.upload_bytes) == (3_000, 2_000)
    assert 0 < second < 0.1
    assert first == pytest.approx(1.0 - second)
    assert len(diary.sampler.samples) >= 2


def test_rank_above_a_bundles_is_refused_before_anything_is_measured(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    asked = ["--bundle", str(tiny_bundle.folder), "--rank", "2,512", "--results", str(tmp_path)]

    done = CliRunner().invoke(app, asked)

    assert isinstance(done.exception, SettingsError)
    assert "got 512" in str(done.exception)
    assert not [*tmp_path.iterdir()]


def test_aggregation_is_what_the_service_spent_on_reading_and_merging() -> None:
    told = "\n".join(
        f'hetlora_round_commit_step_seconds_sum{{step="{name}"}} {seconds}'
        for name, seconds in {"read": 0.5, "screen": 8.0, "aggregate": 0.25, "store": 8.0}.items()
    )
    assert aggregation_seconds(f"# HELP of it\n{told}\n") == 0.75


def test_picture_of_steps_without_a_pause_leaves_windows_without_steps_out(tmp_path: Path) -> None:
    windows = [{"end_seconds": 1.0, "step_seconds": 0.5}, {"end_seconds": 2.0, "step_seconds": None}]
    draw({"sustained": [{"model": "m", "windows": windows}]}, tmp_path / "own.png")
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_rounds_with_a_real_service_are_told_by_edge_flower_tunes_names(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    own = ["--bundle", str(tiny_bundle.folder), "--rank", "1,8", "--shape", "4x16", "--json"]
    more = [
        "--section",
        "micro-batch,round,sustained",
        "--sustained-seconds",
        "1",
        "--steps",
        "1",
        "--board",
        "pi",
    ]
    done = CliRunner().invoke(app, [*own, *more, "--results", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"device-pi.json", "device-pi.png"}
    assert [row["micro_batch"] for row in found["micro_batches"]] == [4, 2, 1]
    assert [(row["rank"], row["steps_completed"]) for row in found["rounds"]] == [(1, 3), (8, 3)]
    small, large = found["rounds"]
    assert small["transmitted_bytes"] == small["download_bytes"] + small["upload_bytes"]
    assert large["upload_bytes"] > 4 * small["upload_bytes"]
    assert all(row["aggregation_time_sec"] > 0 < row["download_time_sec"] for row in found["rounds"])
    assert all(0 < row["avg_rss_mb"] <= row["peak_rss_mb"] for row in found["rounds"])
    (endured,) = found["sustained"]
    assert endured["seconds"] >= 1
    assert sum(window["steps"] for window in endured["windows"]) == endured["steps"]


def test_board_of_no_file_name_is_refused(tmp_path: Path) -> None:
    error = CliRunner().invoke(app, ["--board", "../pi", "--results", str(tmp_path)]).exception
    assert isinstance(error, SettingsError)
    assert "small letters" in str(error)
