"""The browser client's page and programs, as the benchmarks build them; what is missing skips a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.clients import web
from benchmarks.clients.web import WEB
from hetlora.errors import DependencyMissing

__all__ = ["WEB", "built_page", "built_program", "chromium", "told_by_program"]


def built_program(name: str) -> Path:
    """A program of `edge_sdk/web/test/programs`, for Node; without Node its test is skipped."""
    with _needing_node():
        return web.built_program(name)


def built_page() -> Path:
    """The folder of the page, as the service serves it; without Node its test is skipped."""
    with _needing_node():
        return web.built_page()


def told_by_program(name: str, argument: Path, *, seconds: float) -> Any:
    """The JSON that a program prints; without Node its test is skipped."""
    with _needing_node():
        return web.told_by_program(name, argument, seconds=seconds)


def chromium() -> Path:
    """Where a Chromium is, in which the page can be tested; without one its test is skipped."""
    try:
        return web.chromium()
    except DependencyMissing:
        pytest.skip("NO CHROMIUM: the page stays untested; apt-get install chromium")


@contextmanager
def _needing_node() -> Iterator[None]:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the browser client needs Node 20 or newer, and npm")
    yield
