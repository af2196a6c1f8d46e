"""`hetlora serve` with a clock that can be put wrong; run with the clock's file and the options of `Replica`.

The file holds how many seconds the clock is off, and is read each time that the service asks for the time.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aggregator_service.server import serve
from aggregator_service.settings import Settings


def offset_clock(file: Path) -> datetime:
    """The time, off by what the file says."""
    try:
        offset_seconds = float(file.read_text())
    except (OSError, ValueError):  # nobody put it wrong, or somebody does so just now
        offset_seconds = 0.0
    return datetime.now(UTC) + timedelta(seconds=offset_seconds)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    clock_file = Path(sys.argv[1])
    serve(Settings(), clock=lambda: offset_clock(clock_file))
