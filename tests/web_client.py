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
    _build("web-programs", WEB / "build")
    return WEB / "build" / "test" / "programs" / f"{name}.mjs"


def built_page() -> Path:
    """The folder of the page, as the service serves it; without Node its test is skipped."""
    _build("web", WEB / "dist")
    return WEB / "dist"


def chromium() -> Path:
    """Where a Chromium is, in which the page can be tested; without one its test is skipped."""
    found = [
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    ]
    if not found:
        pytest.skip("NO CHROMIUM: the page stays untested; apt-get install chromium")
    return Path(found[0])


def _build(target: str, built: Path) -> None:
    """Build what is older than its sources; others may be running what is not."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the browser client needs Node 20 or newer, and npm")
    done_file = built / "built-by-tests"
    sources = [
        WEB / "package-lock.json",
        WEB / "build.mjs",
        *(WEB / "src").rglob("*"),
        *(WEB / "test").rglob("*"),
    ]
    with FileLock(WEB / "build.lock"):
        if done_file.exists() and done_file.stat().st_mtime > max(path.stat().st_mtime for path in sources):
            return
        command = ["make", "--silent", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        done_file.touch()
