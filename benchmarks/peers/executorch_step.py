"""Local training steps with ExecuTorch's own training module and SGD; run with a config file.

Prints one JSON object. It needs torch and executorch, and nothing of hetlora.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.extension.training import (  # type: ignore[import-untyped]
    _load_for_executorch_for_training,
    get_sgd_optimizer,
)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Losses and seconds of the steps in `config`; those that warm up are not counted."""
    torch.set_num_threads(config["threads"])
    module = _load_for_executorch_for_training(config["program"])
    optimizer = None
    losses, seconds, cpu_seconds = [], [], []
    for tokens in np.load(config["arrays"])["input_ids"]:
        started, cpu_started = time.perf_counter(), time.process_time()
        (loss, *_) = module.forward_backward("forward", (torch.from_numpy(tokens),))
        if optimizer is None:  # parameters have names once a step was taken
            parameters = module.named_parameters()
            optimizer = get_sgd_optimizer(
                parameters, config["learning_rate"], 0.0, 0.0, config["weight_decay"], False
            )
        optimizer.step(module.named_gradients())
        losses.append(loss.item())
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
