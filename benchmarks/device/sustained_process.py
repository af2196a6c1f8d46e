"""Steps without a pause for some time, beside what the sensors tell; run with a config file.

Prints one JSON object. It needs hetlora's edge part, and nothing of the other parts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.device.examples import examples_of
from benchmarks.device.sampling import Sampler
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.forecast import StepPlan
from edge_sdk.planning.trial import steps_of
from edge_sdk.runtimes import runtime_for
from hetlora.bundle import open_bundle
from hetlora.messages.device import TrainingSettings


def run(config: dict[str, Any]) -> dict[str, Any]:
    """When each step ended and what it took, and every sample."""
    bundle = open_bundle(Path(config["bundle"]), verify=False)
    step = StepPlan(**config["step"])
    training = TrainingSettings(batch_size=step.batch, max_tokens=bundle.manifest.max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        store = ExampleStore(Path(folder) / "examples.sqlite")
        store.put_many(examples_of(bundle.manifest, step.batch))
        runtime = runtime_for(bundle.manifest)
        take = steps_of(bundle, runtime, store, step, training, config["threads"])()
        take()  # in the first step the runtime plans its memory
        steps: list[tuple[float, float]] = []
        with Sampler() as sampler:
            began = time.perf_counter()
            while not steps or steps[-1][0] < config["seconds"]:
                started = time.perf_counter()
                take()
                ended = time.perf_counter()
                steps.append((ended - began, ended - started))
        store.close()
    return {
        "steps": steps,
        "samples": [asdict(sample) for sample in sampler.samples],
        "watts": sampler.watts(),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
