"""`hetlora plan`: the rank, why it is no higher, and what every rank would take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_bundle import bundle_on_disk
from strong_device import STRONG
from typer.testing import CliRunner

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.planning.corrections import Corrections, circumstances_of
from edge_sdk.planning.forecast import PROCESS_BYTES, Correction
from edge_sdk.probe import measure_capabilities
from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.main import app
from hetlora.errors import DeviceTooSmall, VariantMismatch
from hetlora.manifest import MANIFEST_NAME


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Of up to rank 4; 100 MB are alive for each row, and 10 MB for each rank. The rest is nothing."""
    bundle = bundle_on_disk(tmp_path / "bundle")
    costs = bundle.manifest.cost_model.model_dump()
    costs["live_bytes"] = [{"per_text": 100_000_000, "per_rank": 10_000_000}]
    manifest = bundle.manifest.model_copy(update={"cost_model": type(bundle.manifest.cost_model)(**costs)})
    (bundle.folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return bundle


def profile(tmp_path: Path, **changes: object) -> str:
    path = tmp_path / "profile.json"
    path.write_text(STRONG.model_copy(update=changes).model_dump_json())
    return str(path)


def told(bundle: Bundle, *words: str) -> Any:
    asked = ["plan", "--bundle", str(bundle.folder), *words]
    return CliRunner().invoke(app, asked, catch_exceptions=False)


def test_strong_device_takes_what_the_run_allows(bundle: Bundle, tmp_path: Path) -> None:
    done = told(bundle, "--profile", profile(tmp_path), "--batch-size", "4")
    assert done.stdout == "rank 4: the run allows no higher rank\n"


def test_lean_device_tells_what_it_gives_up(bundle: Bundle, tmp_path: Path) -> None:
    # Of 1.15 * (100 + 10 * rank) MB at one row: rank 2 takes 138 MB and rank 4 161 MB.
    free = int((PROCESS_BYTES + 150_000_000) / 0.7)
    lean = profile(tmp_path, memory_available_bytes=free)
    done = told(bundle, "--profile", lean, "--batch-size", "4", "--explain")
    lines = done.stdout.splitlines()
    assert lines[0] == "rank 2: the next rank does not fit the memory, not even one row at a time"
    assert lines[1] == "batches in 4 parts of up to 1 rows, for want of memory"
    assert [line.rstrip("│ ").endswith("memory") for line in lines if line.startswith("│")] == [
        False,
        False,
        True,
    ]
    assert "memory: 251 MB, 70% of what is free" in lines
    assert "bundle: 1 modules trained, of up to rank 4" in lines


def test_machines_get_every_rank_with_the_limit_that_it_passes(bundle: Bundle, tmp_path: Path) -> None:
    free = int((PROCESS_BYTES + 150_000_000) / 0.7)
    lean = profile(tmp_path, memory_available_bytes=free)
    found = json.loads(told(bundle, "--profile", lean, "--batch-size", "4", "--json").stdout)
    assert (found["fits"], found["choice"]["rank"], found["choice"]["bound_by"]) == (True, 2, "memory")
    assert [(row["rank"], row["micro_batch"], row["passes"]) for row in found["ranks"]] == [
        (1, 1, None),
        (2, 1, None),
        (4, 1, "memory"),
    ]
    assert found["correction"] is None


def test_device_that_is_too_small_is_told_why_and_by_how_much(bundle: Bundle, tmp_path: Path) -> None:
    small = profile(tmp_path, memory_available_bytes=100 * 2**20)
    asked = ["plan", "--bundle", str(bundle.folder), "--profile", small, "--json"]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, DeviceTooSmall)
    found = json.loads(done.stdout)
    assert (found["fits"], found["choice"]) == (False, None)
    assert found["reason"].startswith("not even rank 1 fits this device, for lack of memory; got 70 MiB")
    assert done.exception.exit_code == 5


def test_settings_of_the_run_are_planned_with(bundle: Bundle, tmp_path: Path) -> None:
    run = ("--max-rank", "3", "--steps", "7", "--batch-size", "5", "--max-tokens", "9", "--examples", "2")
    choice = json.loads(told(bundle, "--profile", profile(tmp_path), *run, "--json").stdout)["choice"]
    assert (choice["rank"], choice["steps"], choice["max_tokens"], choice["batch"]) == (3, 7, 9, 2)
    assert choice["concessions"] == ["batches of 2 examples instead of 5: there are no more"]


def test_what_real_steps_took_on_this_device_is_planned_with(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    digest = open_bundle(bundle.folder, verify=False).digest  # of the manifest as it is now
    database = DeviceDatabase(folder / "device.sqlite")
    here = circumstances_of(measure_capabilities(folder), None, OnnxRuntime)
    Corrections(database).keep(digest, here, Correction(memory=2.0, seconds=3.0))
    database.close()
    found = json.loads(told(bundle, "--folder", str(folder), "--batch-size", "1", "--json").stdout)
    assert found["correction"] == {"memory": 2.0, "seconds": 3.0, "watts": None}
    plain = json.loads(told(bundle, "--batch-size", "1", "--json").stdout)
    assert plain["correction"] is None
    assert found["ranks"][0]["peak_bytes"] == 2 * plain["ranks"][0]["peak_bytes"]


@pytest.fixture
def int8(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A variant in which 50 MB are alive for each row in the place of 100."""
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "int8"))
    manifest = open_bundle(folder, verify=False).manifest
    costs = manifest.cost_model.model_dump()
    costs["live_bytes"][0]["per_text"] = 50_000_000
    changed = {"cost_model": type(manifest.cost_model)(**costs), "base_precision": "int8"}
    (folder / MANIFEST_NAME).write_bytes(manifest.model_copy(update=changed).to_json())
    return open_bundle(folder, verify=False)


@pytest.mark.parametrize(
    ("room_mb", "float32", "taken_of_int8"),
    [
        # Rank 4 takes 1.15 * 140 = 161 MB in float32, rank 2 138 and rank 1 127; in int8 rank 4 takes 104.
        (162, "rank 4: the run allows no higher rank", False),
        (150, "rank 2: the next rank does not fit the memory, not even one row at a time", True),
        (110, "not even rank 1 fits this device, for lack of memory; got 201 MiB", True),
    ],
)
def test_bundle_that_is_taken_is_told_with_the_limit_that_bound_the_other(
    bundle: Bundle, int8: Bundle, tmp_path: Path, room_mb: int, float32: str, taken_of_int8: bool
) -> None:
    lean = profile(tmp_path, memory_available_bytes=int((PROCESS_BYTES + room_mb * 1_000_000) / 0.7) + 2)
    words = ("--variant", str(int8.folder), "--profile", lean, "--batch-size", "1")
    lines = told(bundle, *words).stdout.splitlines()
    which = ("not taken", "taken") if taken_of_int8 else ("taken", "not taken")
    assert lines[0].startswith(f"{which[0]} {bundle.folder} (float32): {float32}")
    assert lines[1] == f"{which[1]} {int8.folder} (int8): rank 4: the run allows no higher rank"
    found = json.loads(told(bundle, *words, "--json").stdout)
    assert [own["taken"] for own in found["bundles"]] == [not taken_of_int8, taken_of_int8]
    assert found["bundles"][1]["bundle"] == int8.digest
    assert found["choice"]["rank"] == 4


def test_device_that_is_too_small_for_all_is_told_why_of_the_own_bundle(
    bundle: Bundle, int8: Bundle, tmp_path: Path
) -> None:
    small = profile(tmp_path, memory_available_bytes=100 * 2**20)
    asked = ["plan", "--bundle", str(bundle.folder), "--variant", str(int8.folder), "--profile", small]
    done = CliRunner().invoke(app, [*asked, "--batch-size", "1", "--explain"])
    assert isinstance(done.exception, DeviceTooSmall)
    # Of 1.15 * 110 MB = 121 MiB in float32, and of 1.15 * 60 MB = 66 MiB in int8.
    needed = [line.partition("expected ")[2] for line in done.stdout.splitlines()[:2]]
    assert needed == ["217 MiB to train in", "162 MiB to train in"]
    assert done.exception.expected == "217 MiB to train in"


def test_variant_of_another_adapter_is_refused(bundle: Bundle, int8: Bundle, tmp_path: Path) -> None:
    other = int8.manifest.model_copy(update={"labels": ("warm", "cold")})
    (int8.folder / MANIFEST_NAME).write_bytes(other.to_json())
    asked = ["plan", "--bundle", str(bundle.folder), "--variant", str(int8.folder)]
    done = CliRunner().invoke(app, [*asked, "--profile", profile(tmp_path)])
    assert isinstance(done.exception, VariantMismatch)
