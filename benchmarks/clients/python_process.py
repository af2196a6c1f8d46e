"""Steps of a case in Python, in a process of their own; run with a config file.

Prints one JSON object. It needs hetlora's edge part, and nothing of the other parts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.clients.batches import batch_of
from benchmarks.clients.gradient_graph import GradientGraph
from edge_sdk.runtimes.base import TrainingRuntime
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.trainer import Trainer
from hetlora.bundle import open_bundle
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import adapter_from_bytes


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Losses and seconds of all steps, in ONNX Runtime's training session or in a plain one."""
    folder, threads = Path(config["case"]), config["threads"]
    bundle = open_bundle(folder / "bundle", verify=False)
    settings = TrainingSettings.model_validate_json((folder / "settings.json").read_bytes())
    adapter = adapter_from_bytes((folder / "adapter.safetensors").read_bytes(), bundle.manifest.adapter)
    runtime: TrainingRuntime = (
        GradientGraph(bundle, threads)
        if config["is_plain"]
        else OnnxRuntime(bundle, adapter.ranks, threads=threads)
    )
    trainer = Trainer(runtime, adapter, bundle.manifest, settings)
    told = json.loads((folder / "case.json").read_text())["examples"]
    batch = batch_of(bundle, told, settings)
    losses, seconds = [], []
    for _ in range(settings.steps):
        started = time.perf_counter()
        losses.append(trainer.step(batch))
        seconds.append(time.perf_counter() - started)
    return {"losses": losses, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
