"""The browser client: how it is built and found, and a training as a process of Node or of Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from hetlora.errors import DependencyMissing, HetloraError

WEB: Final = Path(__file__).parents[2] / "edge_sdk" / "web"
_BUILD_SECONDS: Final = 240.0


def built_page() -> Path:
    """The folder of the page, as the service serves it, built anew where a source is younger.

    Raises:
        DependencyMissing: there is no Node or npm, or the build fails.
    """
    return _built("build", WEB / "dist")


def built_program(name: str) -> Path:
    """A program of `edge_sdk/web/test/programs`, for Node; built and failing as the page."""
    return _built("build-tests", WEB / "build") / "test" / "programs" / f"{name}.mjs"


def chromium() -> Path:
    """Where a Chromium is.

    Raises:
        DependencyMissing: nowhere.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    raise DependencyMissing("no Chromium here", expected="apt-get install chromium")


def told_by_program(name: str, argument: Path, *, seconds: float) -> Any:
    """The JSON that a program prints, which is run in the client's folder.

    Raises:
        DependencyMissing: there is no Node or npm.
        HetloraError: the program failed, or took longer.
    """
    command = ["node", str(built_program(name)), str(argument)]
    try:
        done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise HetloraError(f"{name} of the browser client", got=f"no end in {seconds:.0f} s") from error
    if done.returncode:
        raise HetloraError(f"{name} of the browser client failed", got=done.stderr[-2000:].strip())
    return json.loads(done.stdout)


def _built(script: str, target: Path) -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise DependencyMissing(
            "the browser client needs Node 20 or newer, and npm", expected="both installed"
        )
    mark = target / "built-from-python"
    with FileLock(WEB / "build.lock"):
        if not (mark.exists() and mark.stat().st_mtime > max(path.stat().st_mtime for path in _sources())):
            _install()
            _npm("run", "--silent", script)
            mark.touch()
    return target


def _install() -> None:
    """What `make web` does first: the packages of the lock file, where they are not installed yet."""
    installed, wanted = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        _npm("ci", "--no-audit", "--no-fund", "--loglevel=error")
        installed.touch()


def _sources() -> list[Path]:
    folders = (WEB / "src", WEB / "test")
    return [
        WEB / "package-lock.json",
        WEB / "build.mjs",
        *(path for own in folders for path in own.rglob("*")),
    ]


def _npm(*arguments: str) -> None:
    command = ["npm", *arguments]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    if done.returncode:
        raise DependencyMissing(f"npm {arguments[0]} failed", got=(done.stdout + done.stderr)[-2000:].strip())
