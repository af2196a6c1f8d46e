"""Steps of a bundle in a process of their own, as a device takes them; run with a config file.

Prints one JSON object. It needs hetlora's edge part, and nothing of the other parts.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.device.clock import TIMERS
from benchmarks.device.examples import examples_of
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.forecast import StepPlan
from edge_sdk.planning.trial import run_trial, steps_of
from edge_sdk.probe.peak_memory import peak_memory_bytes
from edge_sdk.runtimes import runtime_for
from hetlora.bundle import open_bundle
from hetlora.messages.device import TrainingSettings


def run(config: dict[str, Any]) -> dict[str, Any]:
    """What a device's trial has to say, or the seconds of the steps in `config` and the process's peak."""
    importlib.import_module("edge_sdk.client")  # what an app holds
    timer = TIMERS[config["clock"]]
    bundle = open_bundle(Path(config["bundle"]), verify=False)
    runtime, step = runtime_for(bundle.manifest), StepPlan(**config["step"])
    training = TrainingSettings(batch_size=step.batch, max_tokens=bundle.manifest.max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        store = ExampleStore(Path(folder) / "examples.sqlite")
        store.put_many(examples_of(bundle.manifest, step.batch))
        load = steps_of(bundle, runtime, store, step, training, config["threads"])
        if config["is_trial"]:
            told = asdict(run_trial(load, timer=timer))
        else:
            take = load()
            seconds = [_seconds(take, timer) for _ in range(config["warm_up"] + config["steps"])]
            counted = seconds[config["warm_up"] :]
            told = {"seconds": min(counted), "median_seconds": statistics.median(counted)}
        store.close()
    return {**told, "peak_bytes": peak_memory_bytes()}


def _seconds(take: Callable[[], object], timer: Callable[[], float]) -> float:
    started = timer()
    take()
    return timer() - started


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
