"""One export in a process of its own, watched for the memory that it holds; run with a config file.

Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.llama import export_llama

_SAMPLE_SECONDS: Final = 0.005


class PeakOfHeldMemory:
    """The most memory that the process holds, without files that it has mapped; sampled in a thread."""

    def __init__(self) -> None:
        self._process, self._done = psutil.Process(), threading.Event()
        self.before_bytes = self.peak_bytes = self._held()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakOfHeldMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._held())

    def _held(self) -> int:
        info = self._process.memory_info()
        return int(info.rss) - int(getattr(info, "shared", 0))  # Linux alone tells mapped files apart


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Export the model of `config`; seconds, and bytes of memory at the peak and before the export."""
    with PeakOfHeldMemory() as memory:
        started = time.perf_counter()
        export_llama(
            Path(config["model"]),
            Path(config["out"]),
            config["base"],
            "none",
            max_rank=config["max_rank"],
            max_tokens=config["max_tokens"],
        )
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "libraries_bytes": memory.before_bytes,
        "peak_held_bytes": memory.peak_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
