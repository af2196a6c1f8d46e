"""Folders that commands write into at their end."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hetlora.errors import SettingsError


def writable(folder: Path | None) -> Path | None:
    """The folder, made if it was not there: hours of work are not to end without a place for their result.

    Raises:
        SettingsError: it cannot be written into.
    """
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingsError(
            "the folder cannot be written", got=error, expected="room, and leave to write there"
        ) from error
    return folder
