"""The end of a process: as an exception that no code of ours catches, and in truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys


class Killed(BaseException):
    """The process ends here."""


def run_until_killed(program: str, *arguments: object) -> None:
    """Run a program that kills itself, and can import what this process can."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
