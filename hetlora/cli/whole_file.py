"""Files that commands write whole, or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hetlora.errors import DiskFull, SettingsError


def check_new(out: Path) -> None:
    """Raise SettingsError if something is there already."""
    if os.path.lexists(out):
        raise SettingsError("the place for the file is taken", got=out, expected="no such file yet")


@contextmanager
def new_file(out: Path) -> Iterator[BinaryIO]:
    """A file that is there under its name once the block has ended, and not at all if it fails.

    Raises:
        SettingsError: it is there already, or cannot be written.
        DiskFull: there is no room for it.
    """
    check_new(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
            partial.rename(out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("no room for the file", got=out) from error
        raise SettingsError(
            "the file cannot be written", got=error, expected="room, and leave to write there"
        ) from error


def write_new(out: Path, data: bytes) -> None:
    """Write bytes to a file that does not exist yet; errors as `new_file`."""
    with new_file(out) as file:
        file.write(data)
