"""The README's example for app developers, run as it stands but for its address, names and labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet

from hetlora.states import AssignmentState

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_example_trains_and_delivers(fleet: TinyFleet, tmp_path: Path) -> None:
    run = fleet.start_run(rounds=1, goal_count=1)
    example = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert len(example.splitlines()) <= 30
    for stands, here in {
        "https://fl.example.org": fleet.service.url,
        "support-intents": "fleet",
        "/var/lib/myapp/hetlora": str(tmp_path / "app"),
        "from your operator": fleet.enrolment_token,
        '"delivery"': '"weather"',
        '"refund"': '"food"',
        # A machine with a loopback alone does not know what its network costs; an app may say it.
        "on_event=show,": "on_event=show, is_metered=lambda: False,",
    }.items():
        assert stands in example
        example = example.replace(stands, here)

    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=True
    )

    assert "step 3 of 3" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("accepted")
    assert len(fleet.in_state(run, AssignmentState.ACCEPTED)) == 1
