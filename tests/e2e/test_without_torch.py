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


BARE = ROOT / "deploy" / "edge-requirements.txt"


@pytest.fixture(scope="module", params=["extra", "bare"])
def edge_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment: of `pip install hetlora[edge]`, or of what a device loads."""
    folder = tmp_path_factory.mktemp("edge")
    # This environment's pip fills it, and leaves compiling to the imports: else that is half of the time.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile"]
    pip += ["--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", str(ROOT / "constraints.txt")]
    wanted = ["--editable", f"{ROOT}[edge]"]
    if request.param == "bare":
        wanted = ["--no-deps", "--requirement", str(BARE), "--editable", str(ROOT)]
    subprocess.run([*pip, *wanted], check=True, timeout=240)
    return python


def test_device_trains_and_delivers_without_torch(fleet: TinyFleet, edge_python: Path) -> None:
    looks = "from importlib.util import find_spec; print(find_spec('torch'), find_spec('transformers'))"
    found = subprocess.run([str(edge_python), "-c", looks], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["None", "None"]
    told = subprocess.run([str(edge_python), "-m", "hetlora.cli", "--help"], capture_output=True, check=False)
    assert told.returncode == 0, told.stderr

    run = fleet.start_run(rounds=1, goal_count=1)
    fleet.device("bare", python=edge_python)

    assert fleet.finished(run).state is RunState.COMPLETED
    (status,) = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert status.device_name == "bare"
