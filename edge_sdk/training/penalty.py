"""HetLoRA's penalty (arXiv 2401.06432), which makes the ranks small that self-pruning may cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hetlora.adapter import LoraFactors, Tensor
from hetlora.algebra import NORM_EPSILON, pruned_rank
from hetlora.tensors import factor_keys


class TailPenalty:
    """The sum over modules of ||B[:, c:]|| ||A[c:]||, c = floor(gamma r).

    Views of the tails are made once: of a small model's step, to make them anew took 1 %.

    Args:
        factors: by module name; looked at as they stand whenever the penalty is asked for.
        gradients: of what is trained of them, by PEFT key, in the same shapes.
        pruning_decay: gamma.
    """

    def __init__(
        self, factors: Mapping[str, LoraFactors], gradients: Mapping[str, Tensor], pruning_decay: float
    ) -> None:
        self._tails = []
        for name, own in factors.items():
            keep = pruned_rank(own.rank, pruning_decay)
            key_A, key_B = factor_keys(name)
            slope_A = gradients[key_A][keep:] if key_A in gradients else None
            slope_B = gradients[key_B][:, keep:] if key_B in gradients else None
            self._tails.append((own.lora_A[keep:], own.lora_B[:, keep:], slope_A, slope_B))

    def add(self, weight: float) -> float:
        """Add the penalty's gradients, so many times, to those that are there, and return it as many times.

        Under each root stands NORM_EPSILON too, as in the training graphs.
        """
        total = 0.0
        for tail_A, tail_B, slope_A, slope_B in self._tails:
            norm_A, norm_B = _norm(tail_A), _norm(tail_B)
            total += norm_A * norm_B
            if slope_A is not None:
                slope_A += np.float32(weight * norm_B / norm_A) * tail_A
            if slope_B is not None:
                slope_B += np.float32(weight * norm_A / norm_B) * tail_B
        return weight * total


def _norm(tensor: Tensor) -> float:
    numbers = tensor.ravel().astype(np.float64)
    return math.sqrt(float(numbers @ numbers) + NORM_EPSILON)
