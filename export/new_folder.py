"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hetlora.errors import ModelNotExportable


def link_or_copy(source: Path, target: Path) -> None:
    """Let a file that nobody changes be at a second place, at once where the file system has links."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


@contextmanager
def whole_folder_or_none(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its name once the block is done, or goes away if it fails.

    Raises:
        ModelNotExportable: something is there already, or the disk does not take it.
    """
    # A name of its own: the number of a process is not, where each container begins to count anew.
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise ModelNotExportable(
                "the place for the bundle is taken", got=out, expected="no such folder yet"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            yield partial
            partial.rename(out)  # over an empty folder too
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise ModelNotExportable(
            "the bundle cannot be written", got=error, expected="room, and leave to write there"
        ) from error
