"""Locks of this process that nobody waits at for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hetlora.errors import UnavailableError


@contextmanager
def turn(lock: threading.Lock, seconds: float, what: str) -> Iterator[None]:
    """Around what only one thread does at a time.

    Raises:
        UnavailableError: others were at it for as long as that.
    """
    if not lock.acquire(timeout=seconds):
        raise UnavailableError(f"others {what} for too long", got=f"a wait of {seconds:g} s")
    try:
        yield
    finally:
        lock.release()
