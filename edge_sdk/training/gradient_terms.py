"""What changes the gradients of all numbers at once, in place: FedProx's term, and clipping."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from edge_sdk.training.flat_tensors import blocks
from hetlora.adapter import Tensor

# As in `torch.nn.utils.clip_grad_norm_`.
_NORM_SLACK: Final = 1e-6


def add_proximal(gradients: Tensor, numbers: Tensor, begun: Tensor, proximal: float) -> float:
    """Add FedProx's mu (w - w_begun) (arXiv 1812.06127), and return mu/2 ||w - w_begun||^2."""
    squares = 0.0
    for block in blocks(slice(0, gradients.size)):
        change = numbers[block] - begun[block]
        squares += float(np.dot(change, change))
        change *= proximal
        gradients[block] += change
    return proximal / 2 * squares


def clip_norm(gradients: Tensor, max_norm: float) -> float:
    """Scale gradients down to this norm where theirs is larger, and return what it was."""
    parts = (gradients[block] for block in blocks(slice(0, gradients.size)))
    norm = math.sqrt(sum(float(np.dot(part, part)) for part in parts))
    share = max_norm / (norm + _NORM_SLACK)
    if share < 1:
        gradients *= share
    return norm
