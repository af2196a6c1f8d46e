"""A bundle's training problem in PyTorch and PEFT, for comparison."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn

from edge_sdk.runtimes.base import Batch
from export.prototype_classifier import PrototypeClassifier, read_prototypes
from export.quiet import quiet_libraries
from export.source.model_folder import load_model
from hetlora.adapter import Adapter
from hetlora.algebra import pruned_rank
from hetlora.bundle import Bundle
from hetlora.graph_names import LABELS
from hetlora.tensors import factor_keys, write_peft_folder


class PeftTwin:
    """The model of a bundle under an adapter; `wrapped` is PEFT's, `factors` its tensors by PEFT key."""

    def __init__(self, bundle: Bundle, model_folder: Path, adapter: Adapter, scratch: Path) -> None:
        write_peft_folder(adapter, scratch, base_model="tiny")
        with quiet_libraries():  # PEFT finds out by itself that a Conv1D lies transposed, and warns of it
            wrapped = PeftModel.from_pretrained(load_model(model_folder, bundle.manifest.task), scratch)
        self._task = bundle.manifest.task
        self.wrapped = wrapped.eval()
        self._model: nn.Module = wrapped
        if self._task == "text-classification":
            self._model = PrototypeClassifier(wrapped, torch.from_numpy(read_prototypes(bundle)))
        self._model.eval()
        # The classifier's name before, and "default", PEFT's name of the adapter, are none of the key.
        self.factors = {
            name.removeprefix("encoder.").replace(".default", ""): parameter.requires_grad_()
            for name, parameter in self._model.named_parameters()
            if "lora_" in name
        }
        self._ranks = adapter.ranks

    def logits(self, batch: Batch) -> Tensor:
        """(batch, labels) or (batch, tokens, vocabulary); T5 makes its decoder's inputs out of the labels."""
        given = {name: torch.from_numpy(array) for name, array in batch.items()}
        if self._task != "text2text-generation":
            del given[LABELS]
        answer = self._model(**given)
        logits: Tensor = getattr(answer, "logits", answer)
        return logits

    def loss(self, batch: Batch, *, pruning_decay: float = 1.0, pruning_penalty: float = 0.0) -> Tensor:
        """Cross entropy + lambda * sum ||B[:, c:]|| ||A[c:, :]|| with c = floor(gamma r), and no epsilon."""
        logits, labels = self.logits(batch), torch.from_numpy(batch[LABELS])
        if self._task == "text-generation":
            logits, labels = logits[:, :-1], labels[:, 1:]
        cross_entropy = nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100
        )
        return cross_entropy + pruning_penalty * self._tail_norms(pruning_decay)

    def _tail_norms(self, pruning_decay: float) -> Tensor:
        norm = torch.linalg.matrix_norm
        tails = [torch.zeros(())]
        for name, rank in self._ranks.items():
            keep = pruned_rank(rank, pruning_decay)
            if rank > keep:
                lora_A, lora_B = (self.factors[key] for key in factor_keys(name))
                tails.append(norm(lora_B[:, keep:]) * norm(lora_A[keep:]))
        return torch.stack(tails).sum()
