"""The SDK on an emulated aarch64, with real wheels for it: it probes and trains with ExecuTorch as on x86-64.

Its figures are of an emulator, and say nothing of a board's speed or memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.messages.device import Report, TrainingSettings
from hetlora.tensors import to_tensors
from hetlora.testing import FakeService

ROOT: Final = Path(__file__).parents[2]
EMULATED: Final = Path(os.environ.get("HETLORA_AARCH64", ROOT / "build" / "aarch64")) / "bin" / "python"
SCRIPT: Final = ROOT / "tests" / "aarch64" / "device_round.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMULATED.exists(), reason="no emulated aarch64: see tests/aarch64/user_space.py"),
    pytest.mark.timeout(900),  # an import of torch takes half a minute there
]

TRAINING: Final = TrainingSettings(steps=5, batch_size=4, max_tokens=16, learning_rate=1e-3)
# What these compare with, or bring along, is not on a device: the service, ONNX Runtime, transformers, and of
# torch the part that ExecuTorch does not load. The emulator does not hold programs to a limit of memory, and
# its rates are no machine's.
NOT_OF_A_DEVICE: Final = (
    "test_edge_bad_lines.py",
    "test_edge_fetched_files.py",
    "test_edge_variants_service.py",
    "test_edge_quiet_logs.py",
    "test_edge_plan_command.py::test_what_real_steps_took_on_this_device_is_planned_with",
    "test_edge_step_options.py::test_schedules_are_those_of_torch",
    "test_edge_step_options.py::test_all_of_it_together_is_what_torch_makes_of_it",
    "test_probe_here.py::test_limit_of_this_process_is_its_memory",
    "test_probe_here.py::test_report_of_capabilities_is_measured",
)
LOSS_TOLERANCE: Final = 1e-5
# AdamW divides a gradient by its own size, so that noise in a tiny entry counts like a large one.
FACTOR_TOLERANCE: Final = 0.02 * TRAINING.learning_rate


@dataclass(frozen=True, slots=True)
class Round:
    """What a device measured, and what it delivered."""

    told: dict[str, Any]
    begun: Adapter
    update: Adapter
    report: Report


def train(python: Path | str, bundle: Bundle, folder: Path) -> Round:
    """One round of a new device that runs on this Python, against a service in this process."""
    with FakeService(bundle, training=TRAINING) as service:
        done = subprocess.run(
            [str(python), str(SCRIPT), service.url, str(folder)], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["outcome"] == "accepted", told["reason"]
        return Round(told, service.received, service.updates[0], service.reports[0])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A one-layer BERT whose programs leave transposition to the portable kernels.

    In those that are exported by default XNNPACK of executorch 1.3.1 dies on an emulated aarch64, and 1.4.1
    does not load with a torch without CUDA: docs/adr/0027-emulated-aarch64.md.
    """
    from executorch_families import export_for_all

    return export_for_all("bert", tmp_path_factory.mktemp("aarch64"), xnnpack_transposes=False)[1]


def test_a_round_on_aarch64_gives_the_update_that_it_gives_here(bundle: Bundle, tmp_path: Path) -> None:
    here = train(sys.executable, bundle, tmp_path / "here")

    there = train(EMULATED, bundle, tmp_path / "there")

    assert there.told["measured"]["architecture"] == "aarch64"
    assert there.told["measured"]["matmul_flops_per_second"] > 0
    assert there.report.steps == TRAINING.steps
    assert there.report.first_loss == pytest.approx(here.report.first_loss, abs=LOSS_TOLERANCE)
    assert there.report.last_loss == pytest.approx(here.report.last_loss, abs=LOSS_TOLERANCE)
    assert there.report.last_loss < there.report.first_loss
    begun, expected, got = (to_tensors(one) for one in (here.begun, here.update, there.update))
    moved = max(float(np.abs(expected[key] - begun[key]).max()) for key in expected)
    assert moved > 100 * FACTOR_TOLERANCE  # else they would agree without training
    for key, tensor in expected.items():
        np.testing.assert_allclose(got[key], tensor, rtol=0, atol=FACTOR_TOLERANCE, err_msg=key)


@pytest.mark.parametrize("processor", ["cortex-a76", "max"])
def test_probe_on_aarch64_knows_its_processor_and_warns_of_nothing(processor: str) -> None:
    # "max" has vector registers of any length (SVE), whose products set flags that numpy would warn of.
    done = subprocess.run(
        [str(EMULATED), "-W", "error", "-m", "hetlora.cli", "probe", "--json"],
        env={**os.environ, "HETLORA_AARCH64_CPU": processor},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["processor"]["architecture"] == "aarch64"
    assert "asimd" in told["processor"]["instruction_sets"]
    assert ("sve" in told["processor"]["instruction_sets"]) == (processor == "max")
    assert told["rates"]["matmul_flops_per_second"] > 0


@pytest.mark.timeout(3600)
def test_fast_tests_of_the_sdk_pass_on_aarch64(tmp_path: Path) -> None:
    folders = ("tests/unit/edge_sdk", "tests/unit/edge_sdk_probe")
    left_out = [f"{folder}/{name}" for folder in folders for name in NOT_OF_A_DEVICE]
    command = [EMULATED, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--timeout=900"]
    command += [f"--basetemp={tmp_path / 'emulated'}", *folders]
    command += [f"{'--deselect' if '::' in name else '--ignore'}={name}" for name in left_out]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stdout[-4000:]
    print(done.stdout.splitlines()[-1])
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 1000
