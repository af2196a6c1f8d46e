"""What training and inference need of a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle

# Arrays by input name: those of the manifest, and LABELS (hetlora.graph_names).
Batch = Mapping[str, NDArray[Any]]
# The factors under which the model stands, by PEFT key; of any rank, 0 among them.
Factors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over a batch, and float32 logits (batch, labels); None where text is generated."""

    loss: float
    logits: NDArray[np.float32] | None


class TrainingRuntime(Protocol):
    """The frozen base model of one bundle, which says what a batch makes of factors; it remembers none."""

    @property
    def most_rows(self) -> int | None:
        """How many rows it takes at a time; None: any number."""

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        """The mean loss of a batch, and its gradients: float32, by PEFT key, of the shapes of the factors.

        Those of one call are good until the next.
        """

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Score a batch under these factors."""


class RuntimeFactory(Protocol):
    """Opens a bundle's training graph for factors of these ranks, by module name; 0 is a module left out.

    Where frozen factors stand beside those that are trained, their ranks are counted in.
    """

    def __call__(
        self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None
    ) -> TrainingRuntime: ...


class LogitsModel(Protocol):
    """A bundle's model, under an adapter or untrained."""

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Logits (batch, labels) or (batch, tokens, vocabulary), under another adapter if one is given."""


class ModelOpener(Protocol):
    """Opens a bundle's model under finished factors, or untrained."""

    def __call__(
        self, bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None
    ) -> LogitsModel: ...
