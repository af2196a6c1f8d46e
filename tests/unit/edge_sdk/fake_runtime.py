"""A runtime of one line of algebra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fake_bundle import SPEC

from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.bundle import Bundle
from hetlora.graph_names import LABELS


@dataclass
class QuadraticRuntime:
    """Loss = half the squared distance of lora_B from one; a step goes the given share of the way."""

    now: Adapter
    batches: list[Batch] = field(default_factory=list)

    def train_step(self, batch: Batch, *, learning_rate: float) -> float:
        self.batches.append(batch)
        lora_A, lora_B = self.now.factors["query"].lora_A, self.now.factors["query"].lora_B
        self.now = Adapter(SPEC, {"query": LoraFactors(lora_A, lora_B + learning_rate * (1 - lora_B))})
        return 0.5 * float(np.sum((lora_B - 1) ** 2))

    def evaluate(self, batch: Batch) -> Evaluation:
        """Every example is taken for the first class, as the more surely the larger lora_B is."""
        self.batches.append(batch)
        surely = float(self.now.factors["query"].lora_B.mean())
        return Evaluation(0.0, np.tile(np.array([surely, 0], np.float32), (len(batch[LABELS]), 1)))

    def adapter(self) -> Adapter:
        return self.now

    def cores(self) -> dict[str, Tensor]:
        return {}


def quadratic(
    bundle: Bundle,
    adapter: Adapter,
    *,
    pruning_decay: float,
    pruning_penalty: float,
    threads: int | None,
    parametrisation: Parametrisation | None = None,
) -> QuadraticRuntime:
    return QuadraticRuntime(adapter)


@dataclass
class Opened:
    """Opens runtimes of one line of algebra, and keeps what they were opened with."""

    began: list[Adapter] = field(default_factory=list)
    how: list[Parametrisation] = field(default_factory=list)

    def __call__(
        self, bundle: Bundle, adapter: Adapter, *, parametrisation: Parametrisation, **settings: Any
    ) -> QuadraticRuntime:
        self.began.append(adapter)
        self.how.append(parametrisation)
        return QuadraticRuntime(adapter)
