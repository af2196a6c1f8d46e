"""HetLoRA's penalty (arXiv 2401.06432), which makes the ranks small that self-pruning may cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hetlora.adapter import LoraFactors, Tensor
from hetlora.algebra import NORM_EPSILON, pruned_rank
from hetlora.tensors import factor_keys


def tail_penalty(factors: Mapping[str, LoraFactors], pruning_decay: float) -> tuple[float, dict[str, Tensor]]:
    """HetLoRA's sum over modules of ||B[:, c:]|| ||A[c:]||, c = floor(gamma r), and its gradients.

    Factors are by module name, gradients by PEFT key and of the tails alone: A[c:] and B[:, c:]. Under each
    root stands NORM_EPSILON too, as in the training graphs.
    """
    total = 0.0
    gradients: dict[str, Tensor] = {}
    for name, own in factors.items():
        keep = pruned_rank(own.rank, pruning_decay)
        tail_A, tail_B = own.lora_A[keep:], own.lora_B[:, keep:]
        norm_A, norm_B = _norm(tail_A), _norm(tail_B)
        slopes = norm_B / norm_A * tail_A, norm_A / norm_B * tail_B
        total += norm_A * norm_B
        gradients.update(zip(factor_keys(name), slopes, strict=True))
    return total, gradients


def add_to_tail(gradient: Tensor, tail: Tensor) -> None:
    """Add, in place, what concerns the last ranks of a factor alone."""
    rows, columns = tail.shape
    gradient[gradient.shape[0] - rows :, gradient.shape[1] - columns :] += tail


def _norm(tensor: Tensor) -> float:
    numbers = tensor.ravel().astype(np.float64)
    return math.sqrt(float(numbers @ numbers) + NORM_EPSILON)
