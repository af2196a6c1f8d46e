"""How a run steps towards what its rule makes of a round: one message a server optimizer.

`aggregator_service/aggregation/optimizers.py` computes them.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hetlora.messages.common import Message
from hetlora.messages.only_with import OnlyWith, check_all_used

Decay = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(ge=1e-9, le=100, description="factor of every step")]


class ServerMomentum(Message):
    """FedAvgM (arXiv 1909.06335): momentum over the change of the aggregate."""

    name: Literal["momentum"] = "momentum"
    learning_rate: LearningRate = 1.0
    momentum: Decay = Field(default=0.9, description="share of the velocity that is kept from round to round")


class ServerAdaptive(Message):
    """FedAdagrad, FedAdam and FedYogi (Reddi et al., arXiv 2003.00295, Algorithm 2)."""

    name: Literal["adagrad", "adam", "yogi"]
    learning_rate: LearningRate = 0.01
    beta1: Decay = Field(default=0.9, description="decay of the mean of changes")
    beta2: Annotated[Decay, OnlyWith(("adam", "yogi"))] = Field(
        default=0.99, description="decay of the mean of their squares"
    )
    epsilon: float = Field(
        default=1e-3,
        ge=1e-12,
        le=1,
        description="added to the root of the squares; changes well below it move little",
    )

    @model_validator(mode="after")
    def _does_something_with_all_of_it(self) -> Self:
        check_all_used(self)
        return self


ServerOptimizer = Annotated[ServerMomentum | ServerAdaptive, Field(discriminator="name")]
