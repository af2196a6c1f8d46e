"""Flower's own weighted mean of updates, in its own environment; run with a config file.

Prints one JSON object. It needs flwr and numpy, and nothing of hetlora.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import (  # type: ignore[import-not-found]
    Array,
    ArrayRecord,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.strategy.strategy_utils import (  # type: ignore[import-not-found]
    aggregate_arrayrecords,
)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Aggregate the updates in the config's folder, which Flower holds as its own serialised arrays."""
    stored = [tensors_of(path) for path in sorted(Path(config["updates"]).glob("*.safetensors"))]
    arrays = [ArrayRecord({name: Array(array) for name, array in one.items()}) for one in stored]
    replies = [
        RecordDict({"arrays": arrays[number % len(arrays)], "metrics": _examples(1 + number % 5)})
        for number in range(config["count"])
    ]
    mean = aggregate_arrayrecords(replies, "num-examples")  # warms up
    seconds, cpu_seconds = [], []
    for _ in range(config["passes"]):
        started, cpu_started = time.perf_counter(), time.process_time()
        aggregate_arrayrecords(replies, "num-examples")
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    if "out" in config:
        np.savez(Path(config["out"]) / "flower.npz", **{name: array.numpy() for name, array in mean.items()})
    return {
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
        "versions": {name: version(name) for name in ("flwr", "numpy")},
    }


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    numbers = np.frombuffer(data[start:], np.float32)
    ends = {name: [offset // 4 for offset in entry["data_offsets"]] for name, entry in header.items()}
    return {name: numbers[first:end].reshape(header[name]["shape"]) for name, (first, end) in ends.items()}


def _examples(count: int) -> MetricRecord:
    return MetricRecord({"num-examples": count})


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
