"""The exported classifier in PyTorch: what the graphs must agree with, and what makes the prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer  # type: ignore[import-untyped]
from torch import Tensor, nn

from export.quiet import quiet_libraries
from export.source.model_folder import load_model
from export.training.classifier_graph import PROTOTYPES
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid
from hetlora.graph_names import LOGIT_SCALE


def pooled_embedding(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the attention mask, then L2 normalisation: (batch, tokens, hidden) -> (batch, hidden)."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
    return nn.functional.normalize(mean, dim=-1)


class PrototypeClassifier(nn.Module):
    """A frozen or adapted encoder whose logits are 20 times the cosine with each class prototype.

    `prototypes` is (labels, hidden) float32 with rows of length one. `forward` takes the encoder's inputs,
    int64 of (batch, tokens), by name and answers logits (batch, labels) float32.
    """

    prototypes: Tensor

    def __init__(self, encoder: nn.Module, prototypes: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("prototypes", prototypes)

    def forward(self, *, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        hidden = self.encoder(attention_mask=attention_mask, **inputs).last_hidden_state
        return LOGIT_SCALE * pooled_embedding(hidden, attention_mask) @ self.prototypes.T


def embed_texts(encoder: nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> NDArray[np.float32]:
    """The pooled, normalised embedding of each text: (texts, hidden) float32."""
    rows = []
    for text in texts:  # one by one: padding would make a text's last digits depend on its neighbours
        encoding = tokenizer.encode(text)
        attention_mask = torch.tensor([encoding.attention_mask])
        with torch.no_grad():
            hidden = encoder(
                input_ids=torch.tensor([encoding.ids]), attention_mask=attention_mask
            ).last_hidden_state
        rows.append(pooled_embedding(hidden, attention_mask))
    embeddings: NDArray[np.float32] = torch.cat(rows).numpy()
    return embeddings


def read_prototypes(bundle: Bundle) -> NDArray[np.float32]:
    """The class prototypes of a bundle, (labels, hidden) float32, read out of its base weights."""
    path = bundle.path(bundle.manifest.graphs.inference)
    graph = onnx.load(path, load_external_data=False).graph
    tensor = next((tensor for tensor in graph.initializer if tensor.name == PROTOTYPES), None)
    if tensor is None:
        raise BundleInvalid("the inference graph has no prototypes", got=path.name, expected=PROTOTYPES)
    return numpy_helper.to_array(tensor, str(path.parent)).astype(np.float32)


def load_reference(bundle: Bundle, model: Path, adapter_folder: Path | None = None) -> PrototypeClassifier:
    """The bundle's classifier in PyTorch, from the local model folder and, if given, a PEFT adapter folder.

    Raises:
        ModelNotExportable: the model folder cannot be loaded.
        BundleInvalid: the bundle has no prototypes.
    """
    with quiet_libraries():
        encoder: nn.Module = load_model(model, "text-classification")
        if adapter_folder is not None:
            from peft import PeftModel

            encoder = PeftModel.from_pretrained(encoder, adapter_folder)
    return PrototypeClassifier(encoder, torch.from_numpy(read_prototypes(bundle))).eval()
