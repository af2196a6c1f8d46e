"""Local training steps with PyTorch and PEFT, as `onnx_step.py` takes them; run with a config file.

Prints one JSON object. It needs torch, transformers, peft and numpy, and nothing of hetlora.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM

Batch = dict[str, Tensor]
Loss = Callable[[Batch], Tensor]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Losses and seconds of the steps in `config`; those that warm up are not counted."""
    torch.set_num_threads(config["threads"])
    arrays = {name: torch.from_numpy(array) for name, array in np.load(config["arrays"]).items()}
    prototypes = arrays.pop("prototypes", None)
    model, loss_of = _decoder(config) if prototypes is None else _classifier(config, prototypes)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config["learning_rate"],
        betas=(config["optimizer"]["beta1"], config["optimizer"]["beta2"]),
        eps=config["optimizer"]["epsilon"],
        weight_decay=config["optimizer"]["weight_decay"],
    )
    losses, seconds, cpu_seconds = [], [], []
    for step in range(len(arrays["labels"])):
        started, cpu_started = time.perf_counter(), time.process_time()
        loss = loss_of({name: array[step] for name, array in arrays.items()})
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        # At once, and not before the next backward pass: small gradients that outlive a step keep the
        # allocator from giving large buffers back, which made 2.8 of 2.3 GB at 4x256 tokens of a 135M model.
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    return {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds_per_step": statistics.median(seconds[config["warm_up"] :]),
        "cpu_seconds_per_step": statistics.median(cpu_seconds[config["warm_up"] :]),
    }


def _classifier(config: dict[str, Any], prototypes: Tensor) -> tuple[nn.Module, Loss]:
    # transformers' own choice of attention kernel; no dropout, as the exported graph has none.
    base = AutoModel.from_pretrained(config["model"], local_files_only=True, dtype=torch.float32)
    encoder = PeftModel.from_pretrained(base, config["adapter"], is_trainable=True).eval()

    def loss_of(batch: Batch) -> Tensor:
        labels = batch.pop("labels")
        hidden = encoder(**batch).last_hidden_state  # (batch, tokens, hidden)
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        embedding = nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        logits = config["logit_scale"] * embedding @ prototypes.T
        return nn.functional.cross_entropy(logits, labels)

    return encoder, loss_of


def _decoder(config: dict[str, Any]) -> tuple[nn.Module, Loss]:
    base = AutoModelForCausalLM.from_pretrained(
        config["model"],
        local_files_only=True,
        dtype=torch.float32,
        attn_implementation=config["attention"],
    )
    base.config.use_cache = False
    decoder = PeftModel.from_pretrained(base, config["adapter"], is_trainable=True)
    # After PEFT has wrapped it: else PEFT asks for gradients of the embeddings, which nobody needs here.
    # It works in training mode alone; the model has no dropout.
    base.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    decoder.train()
    return decoder, lambda batch: decoder(**batch).loss


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
