"""The bundle's training problem in PyTorch and PEFT, for comparison."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edge_sdk.runtimes.base import Batch
from export.reference import PrototypeClassifier, load_reference
from hetlora.adapter import Adapter
from hetlora.algebra import pruned_rank
from hetlora.bundle import Bundle
from hetlora.tensors import factor_keys, write_peft_folder


class TorchTwin:
    """An adapter in PyTorch; `factors` holds the trainable tensors by PEFT key."""

    def __init__(self, bundle: Bundle, adapter: Adapter, model_folder: Path, scratch: Path) -> None:
        write_peft_folder(adapter, scratch, base_model="tiny-bert")
        self.model: PrototypeClassifier = load_reference(bundle, model_folder, scratch)
        self.factors = {
            name.removeprefix("encoder.").replace(".default", ""): parameter.requires_grad_()
            for name, parameter in self.model.named_parameters()
            if "lora_" in name
        }
        self._pairs = [
            tuple(self.factors[key] for key in factor_keys(module.name)) for module in adapter.spec.modules
        ]
        self._rank = adapter.rank

    def logits(self, batch: Batch) -> Tensor:
        inputs = {name: torch.from_numpy(array) for name, array in batch.items() if name != "labels"}
        logits: Tensor = self.model(**inputs)
        return logits

    def loss(self, batch: Batch, *, pruning_decay: float, pruning_penalty: float) -> Tensor:
        """Cross entropy + lambda * sum ||B[:, c:]|| ||A[c:, :]|| with c = floor(gamma r), and no epsilon."""
        keep = pruned_rank(self._rank, pruning_decay)
        norm = torch.linalg.matrix_norm
        tails = [norm(lora_B[:, keep:]) * norm(lora_A[keep:]) for lora_A, lora_B in self._pairs]
        labels = torch.from_numpy(batch["labels"])
        cross_entropy = torch.nn.functional.cross_entropy(self.logits(batch), labels)
        return cross_entropy + pruning_penalty * torch.stack(tails).sum()
