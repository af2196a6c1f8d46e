"""Optimizer steps on the host, for what a graph's own optimizer does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edge_sdk.runtimes.adamw import AdamW
from edge_sdk.training.parametrisation import Gradients, Parametrisation, TrainedNumbers
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.algebra import NORM_EPSILON, pruned_rank
from hetlora.errors import RankOutOfRange
from hetlora.manifest import Manifest, OptimizerInfo
from hetlora.tensors import factor_keys


class HostTraining:
    """An adapter under a `Parametrisation`, stepped by AdamW from the loss and gradients that a graph gives.

    HetLoRA's penalty is added here, so that it acts on the adapter's own ranks alone, frozen ones and
    amplification left out; the graph is to be fed a penalty of 0. Cores have no ranks to prune and none.

    Raises:
        SpecMismatch: see `TrainedNumbers`.
    """

    def __init__(
        self,
        adapter: Adapter,
        how: Parametrisation,
        constants: OptimizerInfo,
        *,
        pruning_decay: float,
        pruning_penalty: float,
    ) -> None:
        self.numbers = TrainedNumbers(adapter, how)
        self._decay = pruning_decay
        self._penalty = 0.0 if how.adaptation.trained == "core" else pruning_penalty
        self._optimizer = AdamW(self.numbers.tensors, constants, self.numbers.rates)
        self._gradients: dict[str, Tensor] = {}

    def step(self, loss: float, gradients: Gradients, learning_rate: float) -> float:
        """Take a step, given what the graph says of `numbers.fed()`, and return the loss with the penalty.

        A loss that is not finite is returned too, and leaves the adapter as it was.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # the loss tells
            self._gradients = self.numbers.pulled_back(gradients)
            if self._penalty > 0:
                value, of_penalty = tail_penalty(self.numbers.factors(), self._decay)
                loss += self._penalty * value
                for key, own in self._gradients.items():
                    self._gradients[key] = own + np.float32(self._penalty) * of_penalty[key]
        if math.isfinite(loss):
            self._optimizer.step(self._gradients, learning_rate)
        return loss

    def gradients(self) -> dict[str, Tensor]:
        """A copy of the last step's gradients, by PEFT or core key, of the numbers that are trained."""
        return {key: gradient.copy() for key, gradient in self._gradients.items()}


def host_training(
    manifest: Manifest,
    adapter: Adapter,
    how: Parametrisation | None,
    *,
    pruning_decay: float,
    pruning_penalty: float,
) -> HostTraining | None:
    """What to step an adapter with, if a bundle's own graphs do not: None where nothing is parametrised.

    Raises:
        RankOutOfRange: frozen factors, and graphs that are stamped for one rank.
        SpecMismatch: see `TrainedNumbers`.
    """
    if how is None or how.is_plain:
        return None
    if manifest.fixed_rank is not None and how.frozen is not None:
        raise RankOutOfRange(
            "the bundle's graphs are stamped for one rank and have no room for a frozen adapter",
            expected="a plan without one, or a bundle of any rank",
        )
    return HostTraining(
        adapter, how, manifest.optimizer, pruning_decay=pruning_decay, pruning_penalty=pruning_penalty
    )


def tail_penalty(factors: Mapping[str, LoraFactors], pruning_decay: float) -> tuple[float, dict[str, Tensor]]:
    """HetLoRA's sum over modules of ||B[:, c:]|| ||A[c:]||, c = floor(gamma r), and its gradients.

    Factors are by module name, gradients by PEFT key. Under each root stands NORM_EPSILON too, as in the
    training graphs.
    """
    total = 0.0
    gradients: dict[str, Tensor] = {}
    for name, own in factors.items():
        keep = pruned_rank(own.rank, pruning_decay)
        tail_A, tail_B = own.lora_A[keep:], own.lora_B[:, keep:]
        norm_A, norm_B = _norm(tail_A), _norm(tail_B)
        of_A, of_B = np.zeros_like(own.lora_A), np.zeros_like(own.lora_B)
        of_A[keep:] = norm_B / norm_A * tail_A
        of_B[:, keep:] = norm_A / norm_B * tail_B
        total += norm_A * norm_B
        gradients.update(zip(factor_keys(name), (of_A, of_B), strict=True))
    return total, gradients


def _norm(tensor: Tensor) -> float:
    return math.sqrt(float(np.square(tensor, dtype=np.float64).sum()) + NORM_EPSILON)
