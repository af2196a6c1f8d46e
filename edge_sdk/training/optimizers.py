"""What steps the numbers that are trained, for every runtime: docs/adr/0021-one-optimizer-on-the-host.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edge_sdk.training.flat_tensors import BLOCK, FlatTensors, Shapes, blocks
from hetlora.adapter import Tensor
from hetlora.manifest import OptimizerInfo
from hetlora.messages.device import TrainingSettings

# Which numbers learn at which rate.
Rates = Sequence[tuple[slice, float]]


class Optimizer(Protocol):
    """Steps flat arrays, all of one size, in float32."""

    @property
    def moments(self) -> dict[str, FlatTensors]:
        """What it remembers from step to step, by name."""

    def step(self, numbers: Tensor, gradients: Tensor, rates: Rates, *, number: int) -> None:
        """Move the numbers, in place: the `number`-th step, counted from 1."""


def optimizer_for(settings: TrainingSettings, constants: OptimizerInfo, shapes: Shapes) -> Optimizer:
    """The optimizer of a run, with the constants that its bundle has for AdamW."""
    if settings.optimizer == "sgd":
        return Sgd(shapes, momentum=settings.momentum, weight_decay=constants.weight_decay)
    return AdamW(shapes, constants)


class AdamW:
    """Loshchilov and Hutter's AdamW (arXiv 1711.05101), with the arithmetic of `torch.optim.AdamW`.

    Epsilon is added to the root after the bias correction, and weights decay before the step.
    """

    def __init__(self, shapes: Shapes, constants: OptimizerInfo) -> None:
        self._constants = constants
        self._mean, self._square = FlatTensors(shapes), FlatTensors(shapes)
        self._scratch = np.empty(BLOCK, np.float32)

    @property
    def moments(self) -> dict[str, FlatTensors]:
        """The running means of the gradients and of their squares."""
        return {"mean": self._mean, "square": self._square}

    def step(self, numbers: Tensor, gradients: Tensor, rates: Rates, *, number: int) -> None:
        """Move the numbers, in place: the `number`-th step, counted from 1."""
        for block, rate in _rated_blocks(rates):
            self._step_block(block, numbers[block], gradients[block], rate, number)

    def _step_block(self, block: slice, own: Tensor, gradient: Tensor, rate: float, number: int) -> None:
        beta1, beta2 = self._constants.beta1, self._constants.beta2
        mean, square = self._mean.numbers[block], self._square.numbers[block]
        scratch = self._scratch[: len(own)]
        root_correction = (1 - beta2**number) ** 0.5
        if self._constants.weight_decay:
            own *= 1 - rate * self._constants.weight_decay
        np.subtract(gradient, mean, out=scratch)
        scratch *= 1 - beta1
        mean += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        # rate / (1 - beta1^t) * mean / (sqrt(square) / c + epsilon), both sides of the stroke times c.
        np.sqrt(square, out=scratch)
        scratch += self._constants.epsilon * root_correction
        np.divide(mean, scratch, out=scratch)
        scratch *= rate * root_correction / (1 - beta1**number)
        own -= scratch


class Sgd:
    """Gradient descent with Polyak's momentum, as `torch.optim.SGD` has it; 0 is none.

    Weights decay before the step, as with AdamW; without momentum that is torch's decay, too.
    """

    def __init__(self, shapes: Shapes, *, momentum: float, weight_decay: float) -> None:
        self._momentum, self._weight_decay = momentum, weight_decay
        self._velocity = FlatTensors(shapes if momentum else {})
        self._scratch = np.empty(BLOCK, np.float32)

    @property
    def moments(self) -> dict[str, FlatTensors]:
        """The sum of the gradients, each weighted by the momentum as often as steps have passed."""
        return {"velocity": self._velocity} if self._momentum else {}

    def step(self, numbers: Tensor, gradients: Tensor, rates: Rates, *, number: int) -> None:
        """Move the numbers, in place; the number of the step does not matter."""
        for block, rate in _rated_blocks(rates):
            own, change, scratch = numbers[block], gradients[block], self._scratch
            if self._weight_decay:
                own *= 1 - rate * self._weight_decay
            if self._momentum:
                velocity = self._velocity.numbers[block]
                velocity *= self._momentum
                velocity += change
                change = velocity
            own -= np.multiply(change, rate, out=scratch[: len(own)])


def _rated_blocks(rates: Rates) -> list[tuple[slice, float]]:
    return [(block, rate) for part, rate in rates for block in blocks(part)]
