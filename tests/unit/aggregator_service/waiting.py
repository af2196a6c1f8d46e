"""Waiting for what a service does by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

DEADLINE_SECONDS: Final = 20


def wait_until(come: Callable[[], bool]) -> None:
    """Return once it has come to be, and fail if it does not."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.005)
