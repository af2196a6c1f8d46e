"""Local training steps as a device of hetlora takes them; run with a config file.

Prints one JSON object. It needs hetlora's edge part, and nothing of the other parts.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.runtimes import runtime_named
from edge_sdk.training.trainer import open_trainer
from hetlora.bundle import open_bundle
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import adapter_from_bytes


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Losses and seconds of the steps in `config`; those that warm up are not counted."""
    for module in config.get("imports", ()):  # what else an app holds
        importlib.import_module(module)
    bundle = open_bundle(Path(config["bundle"]), verify=False)
    tensors = (Path(config["adapter"]) / "adapter_model.safetensors").read_bytes()
    trainer = open_trainer(
        runtime_named(config.get("runtime", "onnx")),
        bundle,
        adapter_from_bytes(tensors, bundle.manifest.adapter),
        # The peer has no penalty.
        TrainingSettings(
            learning_rate=config["learning_rate"], pruning_penalty=0, **config.get("step_options", {})
        ),
        threads=config["threads"],
    )
    arrays = dict(np.load(config["arrays"]))
    arrays.pop("prototypes", None)  # they are in the bundle
    losses, seconds, cpu_seconds = [], [], []
    for step in range(len(arrays["labels"])):
        started, cpu_started = time.perf_counter(), time.process_time()
        batch = {name: array[step] for name, array in arrays.items()}
        losses.append(trainer.step(batch))
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds_per_step": statistics.median(seconds[config["warm_up"] :]),
        "cpu_seconds_per_step": statistics.median(cpu_seconds[config["warm_up"] :]),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
