"""Tell plainly which optional part of hetlora a command needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hetlora.errors import DependencyMissing


@contextmanager
def part(extra: str) -> Iterator[None]:
    """Turn a failed import into the pip command that mends it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"this command needs the {extra} part of hetlora",
            got=f"no module {error.name}",
            expected=f"pip install 'hetlora[{extra}]'",
        ) from error
