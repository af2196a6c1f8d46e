"""The browser client at work, for the tests: its training in Node, its page in headless Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from web_client import built_page, chromium, told_by_program

_PATIENCE_SECONDS: Final = 240.0


def train_case(folder: Path) -> Any:
    """What the browser client makes of the training in a folder."""
    return told_by_program("train", folder, seconds=_PATIENCE_SECONDS)


def classify_case(folder: Path) -> Any:
    """The labels that the browser client finds for the texts in a folder."""
    return told_by_program("predict", folder, seconds=_PATIENCE_SECONDS)


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
    return told_by_program("drive", folder / "asked.json", seconds=2 * seconds + 60)


def look_at_page(folder: Path) -> Any:
    """What the page says without a service, in Chromiums that lack this or that."""
    asked = {"chromium": str(chromium()), "profile": str(folder / "profile"), "dist": str(built_page())}
    (folder / "asked.json").write_text(json.dumps(asked))
    return told_by_program("lacking", folder / "asked.json", seconds=_PATIENCE_SECONDS)
