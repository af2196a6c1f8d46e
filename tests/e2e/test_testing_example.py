"""The example of docs/testing.md, run as it stands but for the bundle's place and labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hetlora.bundle import Bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_example_trains_against_the_fake_service(tiny_bundle: Bundle) -> None:
    example = (ROOT / "docs" / "testing.md").read_text().partition("```python\n")[2].partition("```")[0]
    for stands, here in {
        '"bundle/"': repr(str(tiny_bundle.folder)),
        '"delivery"': '"weather"',
        '"refund"': '"food"',
    }.items():
        assert stands in example
        example = example.replace(stands, here)

    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("update of rank ")
