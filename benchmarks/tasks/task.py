"""What every learning problem comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

Logits = NDArray[np.float32]
ScoreLogits = Callable[[Callable[[Batch], Logits]], float]
ScoreAdapter = Callable[[Adapter | None], float]


@dataclass(frozen=True, slots=True)
class Task:
    """A bundle, who holds which data, and how good an adapter is: the higher the better.

    `model` is the folder that the bundle was exported from, and `score_logits` scores whatever answers as it
    does. `answers` scores what an adapter generates, where that is another figure; it takes minutes.
    """

    bundle: Bundle
    model: Path
    clients: Sequence[Client]
    score: ScoreAdapter
    score_logits: ScoreLogits
    metric: str
    answers: ScoreAdapter | None = None


def adapter_score(bundle: Bundle, score_logits: ScoreLogits) -> ScoreAdapter:
    """The score of a bundle's model with an adapter, or with none, on one thread."""
    model = OnnxModel(bundle, threads=1)
    return lambda adapter: score_logits(lambda batch: model.logits(batch, adapter=adapter))
