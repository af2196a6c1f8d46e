"""A device trains in an environment that holds the edge part of hetlora and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet

from hetlora.states import AssignmentState, RunState

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def edge_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment made by `pip install hetlora[edge]`."""
    folder = tmp_path_factory.mktemp("edge")
    # This environment's pip fills it, and leaves compiling to the imports: else that is half of the time.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile"]
    pip += ["--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", str(ROOT / "constraints.txt"), "--editable", f"{ROOT}[edge]"]
    subprocess.run(pip, check=True, timeout=240)
    return python


def test_device_trains_and_delivers_without_torch(fleet: TinyFleet, edge_python: Path) -> None:
    looks = "from importlib.util import find_spec; print(find_spec('torch'), find_spec('transformers'))"
    found = subprocess.run([str(edge_python), "-c", looks], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["None", "None"]

    run = fleet.start_run(rounds=1, goal_count=1)
    fleet.device("bare", python=edge_python)

    assert fleet.finished(run).state is RunState.COMPLETED
    (status,) = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert status.device_name == "bare"
