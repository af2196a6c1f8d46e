"""How a run steps towards what its rule makes of a round: one message a server optimizer.

`aggregator_service/aggregation/optimizers.py` computes them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hetlora.messages.common import Message

Decay = Annotated[float, Field(ge=0, lt=1)]


class ServerMomentum(Message):
    """FedAvgM (arXiv 1909.06335): momentum over the change of the aggregate."""

    name: Literal["momentum"] = "momentum"
    learning_rate: float = Field(default=1.0, gt=0)
    momentum: Decay = 0.9


class ServerAdaptive(Message):
    """FedAdagrad, FedAdam and FedYogi (Reddi et al., arXiv 2003.00295, Algorithm 2)."""

    name: Literal["adagrad", "adam", "yogi"]
    learning_rate: float = Field(default=0.01, gt=0)
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    epsilon: float = Field(default=1e-3, gt=0)


ServerOptimizer = Annotated[ServerMomentum | ServerAdaptive, Field(discriminator="name")]
