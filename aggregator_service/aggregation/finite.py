"""NaN and infinity in updates: found by whichever pass over the numbers comes first."""

from __future__ import annotations

from typing import Literal

import numpy as np

from aggregator_service.aggregation.stacks import Array
from hetlora.errors import NonFiniteValues

# Which pass over the numbers of an update finds those that are not finite: one that only looks, the one that
# takes the norms of the update, or the one that adds it to a sum (`slice_sum.flat_sum`).
FiniteCheck = Literal["read", "norms", "sum"]


def check_finite(values: Array) -> None:
    """Raise unless every number is finite.

    A dot product is a third of the work of looking at each number, and NaN and infinity always show in it;
    numbers above 1e19, whose squares overflow, show too and are then looked at.

    Raises:
        NonFiniteValues: NaN or infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values @ values):
            return
    strange = values.size - int(np.isfinite(values).sum())
    if strange:
        raise NonFiniteValues(
            "the update holds values that are not finite",
            got=f"{strange} of {values.size}",
            expected="finite float32 values",
        )
