"""A LoRA training program as ExecuTorch's own examples make one; run with a config file.

Prints one JSON object. It needs torch, executorch, transformers and peft, and nothing of hetlora. The flow
is that of executorch/extension/training/examples and examples/llm_pte_finetuning: a module that answers the
loss, `torch.export`, `_export_forward_backward`, `to_edge`, `to_executorch`, for portable kernels.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.exir import EdgeCompileConfig, to_edge  # type: ignore[import-untyped]
from peft import PeftModel
from torch import Tensor, nn
from torch.export import export
from torch.export.experimental import _export_forward_backward
from transformers import AutoModelForCausalLM


class PlainSilu(nn.Module):
    """SiLU by its formula: the backward pass of PyTorch's own asks for a kernel that ExecuTorch lacks."""

    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(values)


class TrainingNet(nn.Module):
    """What is exported: the mean loss of the next tokens."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """The mean cross entropy, in nats, of (batch, tokens) int64."""
        logits = self.decoder(input_ids=input_ids).logits[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten())


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Export the model of `config` under its adapter, for batches of one shape."""
    started = time.perf_counter()
    # Fused attention's backward pass has no kernel of ExecuTorch.
    base = AutoModelForCausalLM.from_pretrained(
        config["model"], local_files_only=True, dtype=torch.float32, attn_implementation="eager"
    )
    base.config.use_cache = False
    for layer in base.model.layers:
        layer.mlp.act_fn = PlainSilu()
    net = TrainingNet(PeftModel.from_pretrained(base, config["adapter"], is_trainable=True))
    example = torch.from_numpy(np.load(config["arrays"])["input_ids"][0])
    joint = _export_forward_backward(export(net, (example,), strict=False))
    program = to_edge(joint, compile_config=EdgeCompileConfig(_check_ir_validity=False)).to_executorch()
    with Path(config["program"]).open("wb") as file:
        program.write_to_file(file)
    return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
