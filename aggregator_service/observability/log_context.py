"""The piece of work at hand, a request or a round: what is known of it stands on every line that it logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

# One dictionary for each piece, changed in place: what a thread that works for a request has found out is
# known to the request.
_KNOWN: ContextVar[dict[str, str] | None] = ContextVar("known", default=None)


@contextmanager
def work(**told: str) -> Iterator[None]:
    """Begin a piece of work, of which these facts are known."""
    before = _KNOWN.set({**told})
    try:
        yield
    finally:
        _KNOWN.reset(before)


def note(**told: str) -> None:
    """Add to what is known of the work at hand, if any is."""
    known = _KNOWN.get()
    if known is not None:
        known.update(told)


def facts() -> Mapping[str, str]:
    """What is known of the work at hand."""
    return _KNOWN.get() or {}
