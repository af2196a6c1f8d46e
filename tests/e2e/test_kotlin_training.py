"""A Kotlin device that really trains, under ONNX Runtime on the JVM, in a round with a Python device."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from e2e_fleet import TinyFleet, wait_until

from benchmarks.fleet import POPULATION
from benchmarks.processes import Process
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter
from hetlora.algebra import delta_norm, zero_pad
from hetlora.digest import sha256_of
from hetlora.states import AssignmentState, RunState
from hetlora.tensors import adapter_from_bytes, to_tensors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CI = Path(__file__).parents[2] / "android_demo" / "ci"
LABELS = ["weather", "food", "sport"]
RANK = 4
# So many that a checkpoint is due long before the last, also on a quick machine.
STEPS = 600


@pytest.fixture
def fleet(tiny_model_folder: Path, tmp_path: Path) -> Iterator[TinyFleet]:
    """A service with the tiny model, exported for phones too."""
    bundle = export_bundle(
        str(tiny_model_folder),
        tmp_path / "bundle",
        labels=LABELS,
        targets=["query", "value"],
        max_rank=8,
        max_tokens=32,
        runtimes=("onnx", "android"),
    )
    with TinyFleet(tmp_path, bundle) as fleet:
        yield fleet


@pytest.fixture
def kotlin(fleet: TinyFleet, tmp_path: Path) -> Iterator[Process]:
    """A device of rank 4 under the published ONNX Runtime for Java, not started yet; it logs each step."""
    made = subprocess.run(
        [sys.executable, str(CI / "build.py"), "trainer-ort", "--class-path"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    upstream = CI.parent / ".toolchain" / "onnxruntime" / "upstream"
    examples = tmp_path / "examples.tsv"
    rows = [f"words about {label} number {number}\t{label}" for label in LABELS for number in range(4)]
    examples.write_text("\n".join(rows))
    command = ["java", "--add-opens", "java.base/java.net=ALL-UNNAMED", "-XX:+UseSerialGC"]
    command += [f"-Donnxruntime.native.path={upstream}", "-cp", made.stdout.strip().splitlines()[-1]]
    command += ["dev.hetlora.ort.OrtDeviceKt", fleet.service.url, POPULATION]
    command += [str(tmp_path / "kotlin"), str(RANK), str(examples)]
    process = Process(command, tmp_path / "kotlin.log", {"HETLORA_ENROLMENT_TOKEN": fleet.enrolment_token})
    yield process
    process.kill()


def test_a_kotlin_device_is_killed_goes_on_and_what_it_learned_is_merged(
    fleet: TinyFleet, kotlin: Process, tmp_path: Path
) -> None:
    state = tmp_path / "kotlin" / "state.json"
    training = {"steps": STEPS, "batch_size": 4, "max_tokens": 16, "learning_rate": 0.01}
    run = fleet.start_run(rounds=1, goal_count=2, lease_seconds=300, training=training)
    kotlin.start()
    wait_until(
        lambda: state.exists() and '"progress":"training"' in state.read_text(),
        "a checkpoint of the Kotlin device",
    )
    kotlin.kill()
    kotlin.start()
    fleet.device("python", fleet.for_rank(8))

    finished = fleet.finished(run)

    log = kotlin.log.read_text()
    assert finished.state is RunState.COMPLETED, log
    accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert {status.device_name: status.rank for status in accepted} == {"python": 8, "kotlin": RANK}
    # Steps of both processes: each once, but for those after the last checkpoint.
    resumed = re.findall(r"resumed (\d+)", log)
    assert len(resumed) == 1
    assert 1 <= int(resumed[0]) <= STEPS
    submitted = re.findall(r"submitted (\w+) ACCEPTED (\S+) (\S+)", log)
    assert len(submitted) == 1
    digest, first_loss, last_loss = submitted[0]
    assert float(last_loss) < 0.5 * float(first_loss)

    spec = fleet.bundle.manifest.adapter
    files = [path for path in (fleet.service.data_dir / "updates").rglob("*") if path.is_file()]
    updates = {sha256_of(path.read_bytes()): adapter_from_bytes(path.read_bytes(), spec) for path in files}
    assert len(updates) == 2
    assert updates[digest].rank == RANK
    assert finished.adapter_version is not None
    committed = to_tensors(adapter_from_bytes(fleet.operator.adapter_bytes(finished.adapter_version), spec))
    assert_is_merge(committed, list(updates.values()))


def assert_is_merge(committed: dict[str, np.ndarray], updates: list[Adapter]) -> None:
    """HetLoRA: zero-padded factors, weighted by the norms of the products."""
    norms = np.array([delta_norm(update) for update in updates])
    padded = [to_tensors(zero_pad(update, update.spec.max_rank)) for update in updates]
    for key, got in committed.items():
        shares = zip(norms / norms.sum(), padded, strict=True)
        expected = sum(share * update[key].astype(np.float64) for share, update in shares)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
