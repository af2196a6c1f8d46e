"""The probes of both device clients, run one after the other on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from kotlin_client import command

from edge_sdk.probe import take_probe
from edge_sdk.probe.processor import usable_cores
from hetlora.messages.device import CapabilityReport

# Both multiply by a library's kernels, Python by numpy's and Kotlin by ONNX Runtime's; a busy machine takes
# turns from either. Plain Kotlin was a third as fast as numpy.
MOST_TIMES_THE_RATE = 2.5
# Between the two other processes take or leave some.
MEMORY_SHARE = 0.1


@pytest.mark.slow
def test_kotlin_finds_the_same_machine(tmp_path: Path) -> None:
    probe = command("ort.ProbeMainKt", tmp_path)
    told = subprocess.run(probe, check=True, capture_output=True, text=True).stdout
    kotlin, python = CapabilityReport.model_validate_json(told), take_probe(tmp_path).report()
    for field in ("source", "cores", "memory_total_bytes", "architecture", "network"):
        assert getattr(kotlin, field) == getattr(python, field), field
    assert kotlin.cores <= len(usable_cores())
    assert kotlin.memory_available_bytes == pytest.approx(python.memory_available_bytes, rel=MEMORY_SHARE)
    assert kotlin.disk_free_bytes == pytest.approx(python.disk_free_bytes, rel=MEMORY_SHARE)
    times = python.matmul_flops_per_second / kotlin.matmul_flops_per_second
    assert 1 / MOST_TIMES_THE_RATE < times < MOST_TIMES_THE_RATE
    kept = json.loads((tmp_path / "rates.json").read_text())["rates"]
    assert kept["matmul"]["per_second"] == kotlin.matmul_flops_per_second
    assert kept["memory_bandwidth"]["per_second"] == pytest.approx(
        kotlin.memory_bandwidth_bytes_per_second, rel=0.05
    )
