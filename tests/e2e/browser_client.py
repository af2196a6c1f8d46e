"""The browser client at work, for the tests: its training in Node, its page in headless Chromium."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from web_client import WEB, built_page, built_program, chromium

_PATIENCE_SECONDS: Final = 240.0


def train_case(folder: Path) -> Any:
    """What the browser client makes of the training in a folder."""
    return _answer("train", folder, seconds=_PATIENCE_SECONDS)


def classify_case(folder: Path) -> Any:
    """The labels that the browser client finds for the texts in a folder."""
    return _answer("predict", folder, seconds=_PATIENCE_SECONDS)


def drive_page(
    folder: Path,
    url: str,
    *,
    population: str,
    token: str,
    examples: list[tuple[str, str]],
    until: str,
    reload_after_step: int | None = None,
    question: str | None = None,
    seconds: float = 150.0,
) -> Any:
    """What the page shows in headless Chromium once `until` stands in its log; its profile is in `folder`."""
    asked = {
        "url": url,
        "chromium": str(chromium()),
        "profile": str(folder / "profile"),
        "population": population,
        "token": token,
        "examples": "\n".join(f"{label}\t{text}" for text, label in examples),
        "reload_after_step": reload_after_step,
        "until": until,
        "question": question,
        "seconds": seconds,
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    return _answer("drive", folder / "asked.json", seconds=2 * seconds + 60)


def look_at_page(folder: Path) -> Any:
    """What the page says without a service, in Chromiums that lack this or that."""
    asked = {"chromium": str(chromium()), "profile": str(folder / "profile"), "dist": str(built_page())}
    (folder / "asked.json").write_text(json.dumps(asked))
    return _answer("lacking", folder / "asked.json", seconds=_PATIENCE_SECONDS)


def _answer(program: str, argument: Path, *, seconds: float) -> Any:
    """What a program of the browser client prints, in whose folder it is run."""
    command = ["node", str(built_program(program)), str(argument)]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout)
