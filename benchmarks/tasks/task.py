"""What every learning problem comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks.clients import Client
from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle

# An adapter and what is frozen beside it are scored as one; the bundle must hold both.
WIDEST: Final = 128


@dataclass(frozen=True, slots=True)
class Task:
    """A bundle, who holds which data, and how good an adapter is: the higher the better.

    `model` is the folder that the bundle was exported from. `answers` scores what an adapter generates, where
    that is another figure; it takes minutes.
    """

    bundle: Bundle
    model: Path
    clients: Sequence[Client]
    score_logits: Callable[[Callable[[Batch], NDArray[np.float32]]], float]
    metric: str
    answers: Callable[[Adapter | None], float] | None = None

    def score(self, adapter: Adapter | None) -> float:
        """How good the model is with an adapter, or without any."""
        model = opened_model(self.bundle)
        return self.score_logits(lambda batch: model.logits(batch, adapter=adapter))


@lru_cache(maxsize=1)
def opened_model(bundle: Bundle) -> OnnxModel:
    """A bundle's inference graph on one thread; a run scores the same one again and again."""
    return OnnxModel(bundle, threads=1)
