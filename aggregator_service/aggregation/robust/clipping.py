"""Norm clipping of changes in product space, before any weight is computed (methods.md, D.3).

    every ||D_k||_F is at most c times the median of the cohort's, D_k = B_k A_k - (what device k was sent)

HetLoRA weighs by norms, so that an update c times as large counts c^2 to c^3 times: cut first, then weigh.

1. Take each update's line of factors (`line.py`): the norm of what it changed, and how far its factors moved.
2. The limits are `clip_factor` times the medians over the cohort. Where most devices learned nothing, the
   median is over those that did: a limit of zero would undo the round.
3. Take a longer update back along its line, to the point where the norm reaches its limit. Guaranteed: the
   norm of its change is within the limit, whatever its gauge, up to the rounding of factors to float32. Where
   both factors are trained the direction bends from D_k towards its first-order part.
4. The same for the movement of its factors, the root mean square of what their entries moved, which does not
   grow with the rank. A product does not tell its factors: (c B, A / c) is the product (B, A), and changes
   nothing; but it is worth c times B to a rule that averages factors. This compares lengths of steps
   only; no distance between updates is ever taken in raw factors.
5. Example counts are claims, and weights too: those above `clip_factor` times their median are cut to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregator_service.aggregation.robust.line import Line


@dataclass(frozen=True, slots=True)
class Limits:
    """What no update of a round may pass."""

    norm: float
    movement: float
    example_count: int


def limits_of(lines: Sequence[Line], example_counts: Sequence[int], factor: float) -> Limits:
    """`factor` times the median norm, movement and example count of a cohort."""
    return Limits(
        factor * _median([line.norm() for line in lines]),
        factor * _median([line.movement for line in lines]),
        max(1, int(factor * _median(example_counts))),
    )


def _median(lengths: Sequence[float]) -> float:
    median = float(np.median(lengths))
    positive = [length for length in lengths if length > 0]
    return median if median > 0 or not positive else float(np.median(positive))
