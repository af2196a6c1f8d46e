"""`hetlora demo` from the model to the picture, cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import COMMAND

pytestmark = pytest.mark.slow

PNG_MAGIC = b"\x89PNG"


def test_demo_ends_with_a_picture_and_an_adapter_that_pytorch_scores_alike(tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = ["--rounds", "1", "--devices", "4", "--out", str(out), "--json"]

    done = subprocess.run(
        [*COMMAND, "demo", *short], capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_text())
    assert result["final_accuracy"] == result["runs"][0]["accuracies"][-1]
    assert abs(result["pytorch_accuracy"] - result["final_accuracy"]) <= 1 / result["held_out"]
    # Board, phone, board, workstation: three kinds of device, three ranks; then all at the smallest.
    assert [run["ranks"] for run in result["runs"]] == [[4, 4, 16, 32], [4, 4, 4, 4]]
    assert (out / "accuracy.png").read_bytes().startswith(PNG_MAGIC)
    assert (out / "adapter" / "adapter_config.json").is_file()


def test_terminated_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    demo = subprocess.Popen([*COMMAND, "demo", "--out", str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while len(children) < 5:  # the service, and at least four devices
        assert demo.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
        children = psutil.Process(demo.pid).children()

    os.kill(demo.pid, signal.SIGTERM)

    assert demo.wait(60) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(children, timeout=10)[1]
