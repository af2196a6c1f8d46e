"""What the process frees goes back to the system: its memory is what it uses, not what it once used."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

M_MMAP_THRESHOLD: Final = -3  # of glibc's malloc.h
LARGE_BYTES: Final = 2**20


def give_back_what_is_large() -> None:
    """Have glibc unmap large pieces when they are freed; other C libraries do so by themselves.

    Left alone it raises what it takes for large to 32 MB as it meets such pieces. From then on every thread
    keeps an arena of what it once read: of adapters, as many as there are threads.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
