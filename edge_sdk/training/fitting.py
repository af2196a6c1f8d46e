"""Factors that were kept at one rank, wanted at another."""

from __future__ import annotations

import numpy as np

from hetlora.adapter import Tensor


def fitted(kept: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A factor at another rank: its leading ranks, or zeros beyond them."""
    result = np.zeros(shape, np.float32)
    common = tuple(slice(min(sizes)) for sizes in zip(kept.shape, shape, strict=True))
    result[common] = kept[common]
    return result
