"""Our side of `hetlora bench aggregation`, one task in a process of its own; run with a config file.

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.aggregation.commit import run_commit
from benchmarks.aggregation.crossover import run_kept
from benchmarks.aggregation.downlink import run_downlink
from benchmarks.aggregation.throughput import run_limits, run_stream, run_throughput

TASKS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "throughput": run_throughput,
    "stream": run_stream,
    "limits": run_limits,
    "commit": run_commit,
    "kept": run_kept,
    "downlink": run_downlink,
}

if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(TASKS[settings["task"]](settings)))
