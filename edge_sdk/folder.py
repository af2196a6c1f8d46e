"""The device folder: everything that the SDK keeps on a device."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hetlora.errors import SettingsError


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    """Where the database, examples, bundles, unfinished downloads and adapters lie."""

    root: Path

    @property
    def database(self) -> Path:
        """What the device must not lose: see `edge_sdk.device_database`."""
        return self.root / "device.sqlite"

    @property
    def examples_file(self) -> Path:
        return self.root / "examples.sqlite"

    @property
    def held_out_file(self) -> Path:
        return self.root / "held_out.sqlite"

    @property
    def rates_file(self) -> Path:
        """What the probe measured, for as long as it holds."""
        return self.root / "rates.json"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def adapters(self) -> Path:
        """What rounds left behind for the app to answer with."""
        return self.root / "adapters"


def lock_folder(folder: DeviceFolder) -> FileLock:
    """Hold the folder against others until the lock is released or this process ends, however it ends.

    Raises:
        SettingsError: another process, or another client of this one, holds it.
    """
    # Not bound to a thread: an app may close its client in another one than opened it.
    lock = FileLock(folder.root / "lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SettingsError(
            "the device folder is in use", got=folder.root, expected="one client of a folder at a time"
        ) from error
    return lock


def open_folder(root: Path) -> DeviceFolder:
    """Make the folder and its parts where they are missing, closed to other users of the machine.

    Raises:
        SettingsError: the folder cannot be made or written.
    """
    folder = DeviceFolder(root.expanduser().absolute())
    try:
        for path in (folder.root, folder.bundles, folder.downloads, folder.adapters):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"device folder {root} cannot be used", got=error.strerror, expected="a folder to write to"
        ) from error
    return folder


def remove(path: Path) -> None:
    """Remove a file, or a folder where a file belongs."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a power loss, where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
