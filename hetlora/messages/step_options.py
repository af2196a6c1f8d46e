"""How a device takes its steps, beyond their number and their learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hetlora.messages.common import Message
from hetlora.messages.only_with import OnlyWith, check_all_used


def _left_at(default: object) -> Callable[[object], bool]:
    return lambda value: value == default


class StepOptions(Message):
    """What a run may ask of its devices' steps; each is left out at its default, so that older devices may do
    without.

    The loss that `proximal`, clipping and divergence are about has HetLoRA's penalty in it. Steps are counted
    anew in every round.
    """

    optimizer: Literal["adamw", "sgd"] = Field(
        default="adamw",
        description="adamw with the constants of the bundle, or sgd",
        exclude_if=_left_at("adamw"),
    )
    momentum: Annotated[float, OnlyWith(("sgd",))] = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the velocity that is kept from step to step",
        exclude_if=_left_at(0.0),
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="how the learning rate falls towards 0 over the steps of a round, if it does",
        exclude_if=_left_at("constant"),
    )
    warm_up_steps: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=100_000,
        description="steps over which the learning rate first rises, in equal parts",
        exclude_if=_left_at(0),
    )
    max_gradient_norm: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="gradients are scaled down to this norm, over all that is trained",
        exclude_if=_left_at(None),
    )
    proximal: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="mu of FedProx (arXiv 1812.06127): mu/2 times the squared distance from the begin",
        exclude_if=_left_at(0.0),
    )
    divergence_factor: float | None = Field(
        default=None,
        gt=1,
        le=1e6,
        description="training ends where the loss is above so many times that of the first step ...",
        exclude_if=_left_at(None),
    )
    divergence_steps: int = Field(
        default=3,
        strict=True,
        ge=1,
        le=100_000,
        description="... in so many steps running",
        exclude_if=_left_at(3),
    )

    @model_validator(mode="after")
    def _does_something_with_all_of_it(self) -> Self:
        check_all_used(self, "optimizer")
        if self.divergence_factor is None and self.divergence_steps != 3:
            raise ValueError("divergence_steps does nothing without divergence_factor")
        return self
