"""The disk that the device folder lies on: how much is free, and how fast it takes what is to stay."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_sdk.probe.bursts import good_of
from edge_sdk.probe.source import source
from edge_sdk.units import MIB

# No further part after this: a slow card takes as long for the first few.
_WRITE_SECONDS: Final = 0.8
_PART_BYTES: Final = 1 * MIB
_MOST_PARTS: Final = 256
# Written over and over: room that a file system has yet to find made parts differ by three times as much.
_FILE_PARTS: Final = 16
# Where less is free, it is for what the device has to keep.
_LEAST_FREE_BYTES: Final = 64 * MIB


def existing(folder: Path) -> Path:
    """The folder, or where it is not there the nearest one above that is: it would lie on the same disk."""
    there = folder.absolute()
    # Not Path.exists, which raises of a folder that is closed to us.
    return next(path for path in (there, *there.parents) if os.path.exists(path))


@source
def measure_free_disk(folder: Path) -> int:
    """Bytes that are free on the file system of a folder."""
    return shutil.disk_usage(folder).free


@source
def measure_write_rate(
    folder: Path,
    *,
    seconds: float = _WRITE_SECONDS,
    timer: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Bytes per second that are safe on the disk (fsync), a good one of up to 256 parts of 1 MiB.

    The file of 16 MiB has no name and goes with the process, whatever ends it. Unknown where the disk is
    nearly full. A card with a cache of its own keeps the rate for short writes, as a checkpoint's are, and
    no longer.
    """
    if shutil.disk_usage(folder).free < _LEAST_FREE_BYTES:
        return None
    part = os.urandom(_PART_BYTES)  # of which a disk that compresses makes nothing less
    times: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        end = timer() + seconds
        for number in range(_MOST_PARTS):
            if number % _FILE_PARTS == 0:
                file.seek(0)
            started = timer()
            file.write(part)
            os.fsync(file.fileno())
            finished = timer()
            times.append(finished - started)
            if finished >= end:
                break
    return _PART_BYTES / good_of(times)
