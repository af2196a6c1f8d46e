"""Processes that are compared on one core: both sides get the same one, and one thread of BLAS."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import Measured, run_measured

# Before the libraries are loaded, as they count cores and start threads then.
_LAUNCHER: Final = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
for library in ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM"):
    os.environ[library + "_NUM_THREADS"] = "1"
os.execv(sys.argv[1], sys.argv[1:])
"""


def run_on_one_core(command: Sequence[str | Path]) -> Measured:
    """`run_measured` on the last core of those allowed; `command` begins with the path of a program."""
    return run_measured([sys.executable, "-I", "-S", "-c", _LAUNCHER, *command])
