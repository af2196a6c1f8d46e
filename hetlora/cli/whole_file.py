"""Files that commands write whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from hetlora.errors import SettingsError


def write_new(out: Path, data: bytes) -> None:
    """Write bytes to a file that does not exist yet.

    Raises:
        SettingsError: it is there already, or cannot be written.
    """
    if os.path.lexists(out):
        raise SettingsError("the place for the file is taken", got=out, expected="no such file yet")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            partial.rename(out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            "the file cannot be written", got=error, expected="room, and leave to write there"
        ) from error
