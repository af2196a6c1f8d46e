"""AdamW over arrays by name, for runtimes that give gradients and leave the step to us."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hetlora.adapter import Tensor
from hetlora.manifest import OptimizerInfo


class AdamW:
    """Loshchilov and Hutter's AdamW (arXiv 1711.05101), with the arithmetic of `torch.optim.AdamW`.

    Epsilon is added to the root after the bias correction, and weights decay before the step. All in float32.
    `rates` are learning rates over that of a step, 1 where there is none: torch's parameter groups.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        constants: OptimizerInfo,
        rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._parameters, self._constants, self._rates = parameters, constants, rates
        self._means = {key: np.zeros_like(tensor) for key, tensor in parameters.items()}
        self._squares = {key: np.zeros_like(tensor) for key, tensor in parameters.items()}
        self._steps = 0

    def step(self, gradients: Mapping[str, Tensor], learning_rate: float) -> None:
        """Move the parameters, in place."""
        beta1, beta2 = self._constants.beta1, self._constants.beta2
        self._steps += 1
        bias = 1 - beta1**self._steps
        root_correction = np.float32((1 - beta2**self._steps) ** 0.5)
        for key, parameter in self._parameters.items():
            gradient, mean, square = gradients[key], self._means[key], self._squares[key]
            rate = learning_rate * self._rates.get(key, 1.0)
            parameter *= np.float32(1 - rate * self._constants.weight_decay)
            mean += np.float32(1 - beta1) * (gradient - mean)
            square *= np.float32(beta2)
            square += np.float32(1 - beta2) * gradient * gradient
            root = np.sqrt(square) / root_correction + np.float32(self._constants.epsilon)
            parameter -= np.float32(rate / bias) * mean / root
