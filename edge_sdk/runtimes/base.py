"""What training and inference need of a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle

# Arrays by input name: those of the manifest, and LABELS (hetlora.graph_names).
Batch = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over a batch, and float32 logits (batch, labels); None where text is generated."""

    loss: float
    logits: NDArray[np.float32] | None


class TrainingRuntime(Protocol):
    """One adapter being trained over the frozen base model of one bundle."""

    def train_step(self, batch: Batch, *, learning_rate: float) -> float:
        """Take one AdamW step and return the loss before it, pruning penalty included."""

    def evaluate(self, batch: Batch) -> Evaluation:
        """Score a batch with the adapter as it stands, pruning penalty left out."""

    def adapter(self) -> Adapter:
        """A copy of the adapter as it stands."""

    def cores(self) -> Mapping[str, Tensor]:
        """A copy of the cores as they stand, (rank, rank) by module name; none where factors are trained."""


class RuntimeFactory(Protocol):
    """Opens a bundle's training graph around an adapter, with fresh optimizer moments.

    Without a `parametrisation` both factors are trained and nothing stands beside them.
    """

    def __call__(
        self,
        bundle: Bundle,
        adapter: Adapter,
        *,
        pruning_decay: float,
        pruning_penalty: float,
        threads: int | None,
        parametrisation: Parametrisation | None = None,
    ) -> TrainingRuntime: ...


class LogitsModel(Protocol):
    """A bundle's model, under an adapter or untrained."""

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits (batch, labels) or (batch, tokens, vocabulary), under another adapter if one is given."""
