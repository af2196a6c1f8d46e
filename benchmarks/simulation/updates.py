"""Where the updates of virtual devices come from: noise, or real training beside the simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from aggregator_service.service import Service
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, Tensor
from hetlora.messages.device import Plan
from hetlora.partial import contract
from hetlora.plan_adapter import SentAdapter, sent_from_bytes

# About as far as ten steps of AdamW go at a learning rate of 1e-4.
NOISE: Final = 1e-3
# Plans of one rank and version share what was sent: of a round that is over nobody asks.
_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Made:
    """What a device delivers, and what it reports."""

    data: bytes
    rank: int
    first_loss: float
    last_loss: float


class Updates(Protocol):
    """Makes updates that a service takes; the same plan of the same device makes the same bytes."""

    def begin(self, device: int, plan: Plan, steps: int) -> None:
        """A device begins to train."""

    def result(self, device: int, plan: Plan) -> Made:
        """What its training came to.

        Raises:
            TrainingDiverged: to nothing.
        """

    def drop(self, device: int) -> None:
        """Nobody asks what the training comes to."""


class StubbedUpdates:
    """Updates of devices that do not train: what they were sent, with a little noise."""

    def __init__(self, service: Service, spec: AdapterSpec) -> None:
        self._service, self._spec = service, spec
        self._sent: dict[str, SentAdapter] = {}

    def begin(self, device: int, plan: Plan, steps: int) -> None:
        """See `Updates`."""

    def drop(self, device: int) -> None:
        """See `Updates`."""

    def result(self, device: int, plan: Plan) -> Made:
        """See `Updates`."""
        sent = self._sent_with(plan)
        rng = np.random.Generator(np.random.SFC64(plan.seed))
        moved = {
            module.name: LoraFactors(_moved(rng, factors.lora_A), _moved(rng, factors.lora_B))
            for module, factors in sent.adapter
        }
        cores = {name: _moved(rng, core) for name, core in sent.cores.items()}
        data = contract(Adapter(self._spec, moved), plan.adaptation, sent.adapter, cores)
        return Made(data, plan.rank, 0.0, 0.0)

    def _sent_with(self, plan: Plan) -> SentAdapter:
        sha256 = plan.adapter.sha256
        if sha256 not in self._sent:
            if len(self._sent) >= _KEPT:
                self._sent.clear()
            self._sent[sha256] = sent_from_bytes(self._service.objects.read(sha256), self._spec)
        return self._sent[sha256]


def _moved(rng: np.random.Generator, tensor: Tensor) -> Tensor:
    return tensor + NOISE * rng.standard_normal(tensor.shape, dtype=np.float32)
