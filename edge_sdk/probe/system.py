"""Where an operating system tells of its machine: the files of the kernel, below two roots."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_sdk.units import MIB

# No file of these is longer; /proc/cpuinfo has 1.5 kB for each of a large machine's processors.
MOST_BYTES: Final = MIB
MOST_NAME: Final = 128


@dataclass(frozen=True, slots=True)
class System:
    """The machine that is asked.

    `is_here` says that the files are those of the machine that runs this: Python and psutil may then be asked
    for what no file tells, as on macOS and Windows. A recorded tree of files speaks for itself alone.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    machine: str = field(default_factory=platform.machine)
    is_here: bool = True


def text(path: Path | str) -> str:
    """What a file of the kernel says, without the blanks and zeros around it; empty where it says nothing."""
    try:
        data = _read(path)
    except (OSError, ValueError):  # absent, closed to us, a sensor that is off; a path with a NUL in it
        return ""
    return data.decode(errors="replace").strip(" \t\r\n\0")


def _read(path: Path | str) -> bytes:
    # A look at all conditions reads a dozen files between any two steps, and Python's file objects took most
    # of its time.
    data, descriptor = b"", os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        while len(data) < MOST_BYTES and (more := os.read(descriptor, MOST_BYTES - len(data))):
            data += more
    finally:
        os.close(descriptor)
    return data


def below(folder: Path | str, begins: str = "") -> list[Path]:
    """What lies in a folder under names that begin so, in order; nothing where there is none."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return []
    return [Path(folder, name) for name in sorted(names) if name.startswith(begins)]


def number(path: Path | str) -> int | None:
    """The whole number that a file of the kernel says, None where it says none."""
    return whole(text(path))


def whole(word: str, base: int = 10) -> int | None:
    """A word as a whole number of a kernel, which has 64 bits; None where it is none."""
    try:
        value = int(word, base)
    except ValueError:
        return None
    return value if -(2**63) <= value < 2**64 else None


def name(words: str) -> str | None:
    """What a thing calls itself, fit to be shown; None where it does not."""
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return shown[:MOST_NAME] or None
