"""Files that nobody but their owner may read, as they hold keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hetlora.errors import SettingsError


def check_private(path: Path, name: str) -> None:
    """Raise if a file is open to other users, where a system tells that by modes.

    Raises:
        SettingsError: it is; `name` says which file.
        OSError: it is not there, or cannot be looked at.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise SettingsError(f"{name} is open to other users", got=f"mode {mode:04o}", expected="mode 0600")
