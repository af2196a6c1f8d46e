"""The browser client as its own tools build it: npm, esbuild, and Node to run it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from filelock import FileLock

WEB: Final = Path(__file__).parents[2] / "edge_sdk" / "web"
_PATIENCE_SECONDS: Final = 240.0


def node(*arguments: str | Path, seconds: float = _PATIENCE_SECONDS) -> str:
    """What Node prints, in the folder of the browser client."""
    return _run("node", *arguments, seconds=seconds)


def train_case(folder: Path) -> Any:
    """What the browser client makes of the training in a folder."""
    return json.loads(node("build/cases/train.mjs", folder))


def drive_page(
    folder: Path,
    url: str,
    *,
    population: str,
    token: str,
    examples: list[tuple[str, str]],
    until: str,
    reload_after_step: int | None = None,
    seconds: float = 150.0,
) -> Any:
    """What the page shows in headless Chromium once `until` stands in its log; its profile is in `folder`."""
    asked = {
        "url": url,
        "chromium": chromium(),
        "profile": str(folder / "profile"),
        "population": population,
        "token": token,
        "examples": "\n".join(f"{label}\t{text}" for text, label in examples),
        "reload_after_step": reload_after_step,
        "until": until,
        "seconds": seconds,
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    return json.loads(node("build/cases/drive.mjs", folder / "asked.json", seconds=2 * seconds + 60))


def chromium() -> str:
    """Where Chromium is; tests that need it fail without."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("the page is tested in Chromium: apt-get install chromium")
    return found


def build_web(*, lock: Path) -> None:
    """Install what the browser client is built with, unless it is there, and build its page and tests."""
    if shutil.which("npm") is None:
        pytest.fail("the browser client needs Node 20 or newer, and npm; none was found")
    with FileLock(lock):
        if not (WEB / "node_modules" / ".package-lock.json").exists():
            _run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", seconds=_PATIENCE_SECONDS)
        built = WEB / "build" / "built-by-pytest"
        newest = max(path.stat().st_mtime for path in _sources())
        if not built.exists() or built.stat().st_mtime < newest:
            _run("node", "build.mjs", "--tests", seconds=_PATIENCE_SECONDS)
            _run("node", "build.mjs", seconds=_PATIENCE_SECONDS)
            built.touch()


def _sources() -> list[Path]:
    return [
        WEB / "build.mjs",
        WEB / "package.json",
        *(WEB / "src").rglob("*.*"),
        *(WEB / "test").rglob("*.ts"),
    ]


def _run(*command: str | Path, seconds: float) -> str:
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        pytest.fail(f"{command[0]} {command[1]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout
