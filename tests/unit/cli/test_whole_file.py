"""Files that commands write whole, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hetlora.cli.whole_file import new_file
from hetlora.errors import DiskFull


def half_of(out: Path) -> None:
    with new_file(out) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_told_as_such_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="no room for the file"):
        half_of(tmp_path / "table.csv")

    assert list(tmp_path.iterdir()) == []
