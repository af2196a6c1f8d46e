"""Accuracy on held-out passages: of any adapter in ONNX Runtime, and of a PEFT folder in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples import Example
from edge_sdk.runtimes.onnx import OnnxModel
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle

BATCH_SIZE: Final = 25
Inputs = dict[str, NDArray[Any]]


class Scorer:
    """Held-out passages, encoded once, and the bundle's inference graph."""

    def __init__(self, bundle: Bundle, held_out: Sequence[Example]) -> None:
        manifest = bundle.manifest
        encoder = text_encoder(bundle)
        # Passages of like length together: less padding to compute.
        ordered = sorted(held_out, key=lambda example: len(example.text))
        chunks = [ordered[start : start + BATCH_SIZE] for start in range(0, len(ordered), BATCH_SIZE)]
        index = {label: position for position, label in enumerate(manifest.labels)}
        self._batches = [encoder.encode([example.text for example in chunk]) for chunk in chunks]
        self._labels = [np.array([index[example.label] for example in chunk]) for chunk in chunks]
        self._classifier = OnnxModel(bundle, threads=1)

    def accuracy(self, adapter: Adapter | None) -> float:
        """The share that an adapter gets right; None is the untrained model."""
        return self.share_right(lambda batch: self._classifier.logits(batch, adapter=adapter))

    def share_right(self, logits_of: Callable[[Inputs], NDArray[np.float32]]) -> float:
        """The share of passages whose largest logit is their label's."""
        right = [
            logits_of(batch).argmax(axis=1) == labels
            for batch, labels in zip(self._batches, self._labels, strict=True)
        ]
        return float(np.concatenate(right).mean())


def pytorch_accuracy(scorer: Scorer, bundle: Bundle, model: Path, adapter_folder: Path) -> float:
    """The same passages in PyTorch, with the adapter as `peft` loads it from a folder."""
    import torch

    from export.prototype_classifier import load_reference

    reference = load_reference(bundle, model, adapter_folder)

    def logits_of(batch: Inputs) -> NDArray[np.float32]:
        with torch.no_grad():
            answer: NDArray[np.float32] = reference(
                **{k: torch.from_numpy(v) for k, v in batch.items()}
            ).numpy()
        return answer

    return scorer.share_right(logits_of)
