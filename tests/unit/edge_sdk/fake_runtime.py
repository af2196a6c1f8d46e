"""A runtime of one line of algebra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Self

import numpy as np
from fake_bundle import SPEC

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.graph_names import LABELS
from hetlora.tensors import from_tensors


class QuadraticRuntime:
    """Loss = half the squared distance of lora_B from one; gradient descent goes the rate's share of the way.

    `batches` and `fed` are the batches and the factors that it was given. It opens itself.
    """

    most_rows: int | None = None

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.fed: list[dict[str, Tensor]] = []

    def __call__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None) -> Self:
        return self

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        self._note(batch, factors)
        slopes = {key: own - 1 if _is_lora_b(key) else 0 * own for key, own in factors.items()}
        return 0.5 * sum(float(np.sum(slope**2)) for slope in slopes.values()), slopes

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        """Every example is taken for the first class, as the more surely the larger lora_B is."""
        self._note(batch, factors)
        surely = float(np.mean([own.mean() for key, own in factors.items() if _is_lora_b(key)]))
        return Evaluation(0.0, np.tile(np.array([surely, 0], np.float32), (len(batch[LABELS]), 1)))

    def _note(self, batch: Batch, factors: Factors) -> None:
        self.batches.append(batch)
        self.fed.append({key: own.copy() for key, own in factors.items()})


class Telling(QuadraticRuntime):
    """Tells these losses, and the last of them from then on; its slopes are `slope` where one is given.

    An error among the losses is raised.
    """

    def __init__(self, *losses: float | Exception, slope: float | None = None) -> None:
        super().__init__()
        self._losses, self._slope = chain(losses, repeat(losses[-1])), slope

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        _, slopes = super().gradients(batch, factors)
        if self._slope is not None:
            slopes = {key: np.full_like(own, self._slope) for key, own in factors.items()}
        loss = next(self._losses)
        if isinstance(loss, Exception):
            raise loss
        return loss, slopes


class NotScoring(QuadraticRuntime):
    """Trains, and ends with this error where it is to score."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        raise self._error


def _is_lora_b(key: str) -> bool:
    return key.endswith(".lora_B.weight")


def quadratic(bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None) -> QuadraticRuntime:
    return QuadraticRuntime()


@dataclass
class Opened:
    """Opens runtimes of one line of algebra, and keeps them."""

    runtimes: list[QuadraticRuntime] = field(default_factory=list)

    def __call__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None) -> QuadraticRuntime:
        self.runtimes.append(QuadraticRuntime())
        return self.runtimes[-1]

    @property
    def began(self) -> list[Adapter]:
        """What the model of each stood under first; without frozen factors."""
        return [from_tensors(SPEC, runtime.fed[0]) for runtime in self.runtimes]
