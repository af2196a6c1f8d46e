"""Local training steps with PyTorch and PEFT, as `onnx_step.py` takes them; run with a config file.

Prints one JSON object. It needs torch, transformers, peft and numpy, and nothing of hetlora.
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
from peft import PeftModel
from transformers import AutoModel


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Losses and seconds of the steps in `config`; the first step warms up and is not counted."""
    torch.set_num_threads(config["threads"])
    arrays = {name: torch.from_numpy(array) for name, array in np.load(config["arrays"]).items()}
    prototypes, labels = arrays.pop("prototypes"), arrays.pop("labels")
    # transformers' own choice of attention kernel; no dropout, as the exported graph has none.
    base = AutoModel.from_pretrained(config["model"], local_files_only=True, dtype=torch.float32)
    encoder = PeftModel.from_pretrained(base, config["adapter"], is_trainable=True).eval()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in encoder.parameters() if parameter.requires_grad],
        lr=config["learning_rate"],
        betas=(config["optimizer"]["beta1"], config["optimizer"]["beta2"]),
        eps=config["optimizer"]["epsilon"],
        weight_decay=config["optimizer"]["weight_decay"],
    )
    losses, seconds, cpu_seconds = [], [], []
    for step in range(len(labels)):
        started, cpu_started = time.perf_counter(), time.process_time()
        inputs = {name: array[step] for name, array in arrays.items()}
        hidden = encoder(**inputs).last_hidden_state  # (batch, tokens, hidden)
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        embedding = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        logits = config["logit_scale"] * embedding @ prototypes.T
        loss = torch.nn.functional.cross_entropy(logits, labels[step])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds_per_step": statistics.median(seconds[1:]),
        "cpu_seconds_per_step": statistics.median(cpu_seconds[1:]),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
