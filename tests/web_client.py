"""The browser client's tests and programs, built where this checkout has not built them yet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

ROOT: Final = Path(__file__).parents[1]
WEB: Final = ROOT / "edge_sdk" / "web"
BUILD_SECONDS: Final = 240


def built_program(name: str) -> Path:
    """A program of `edge_sdk/web/test/programs`, for Node; without Node its test is skipped."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the browser client needs Node 20 or newer, and npm")
    with FileLock(WEB / "build.lock"):
        command = ["make", "--silent", "web-programs"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return WEB / "build" / "test" / "programs" / f"{name}.mjs"
