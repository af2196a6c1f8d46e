"""How much memory a process has used."""

from __future__ import annotations

import re
import sys

import psutil

from edge_sdk.probe.system import System, text


def peak_memory_bytes(pid: int | None = None, *, system: System | None = None) -> int:
    """The most resident memory that a process, by default this one, has had since its start, or a reset.

    What it holds now, where the system keeps no peak of it: a number for a report must not cost the work.
    """
    held = psutil.Process(pid).memory_info()
    if sys.platform == "win32":
        return int(held.peak_wset)
    if sys.platform == "linux":
        # Not ru_maxrss: a child inherits that from whatever process started it.
        status = text((system or System()).proc / f"{pid or 'self'}/status")
        peak = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return int(peak[1]) * 1024 if peak else int(held.rss)
    if pid is not None:
        return int(held.rss)
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


def reset_peak_memory() -> bool:
    """Have `peak_memory_bytes` begin anew with what this process holds now; False where no system does that.

    Linux alone does, and some of its sandboxes do not.
    """
    try:
        (System().proc / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
