"""Losses reckoned from logits, as the graphs have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hetlora.graph_names import IGNORED_LABEL


def mean_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The mean cross entropy in float64, without the penalty.

    Labels are (batch,) for logits (batch, labels); or (batch, tokens), each the token itself, for logits
    (batch, tokens, vocabulary), where a position is scored by the next label unless that is ignored.
    """
    if labels.ndim == 2:
        counts = labels[:, 1:] != IGNORED_LABEL
        logits, labels = logits[:, :-1][counts], labels[:, 1:][counts]
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True, initial=-np.inf)
    picked = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    losses = np.log(np.exp(shifted).sum(axis=-1)) - picked
    return float(losses.sum() / max(losses.size, 1))
