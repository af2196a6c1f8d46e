"""The door of the round: an update is what its plan asked for, or is refused with a typed reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from hetlora.adapter import LoraFactors
from hetlora.errors import NonFiniteValues, RankOutOfRange
from hetlora.expansion import expand_lazily
from hetlora.lazy_adapter import LazyAdapter
from hetlora.messages.device import Adaptation
from hetlora.stored_tensors import Source

# Far below what float32 can square, 1.8e19: optimizers store sums of squares over all rounds, and one device
# could make these pass float32, for good. Training comes nowhere near.
LARGEST_NORM: Final = 1e15


def validate_update(
    source: Source, received: LazyAdapter, adaptation: Adaptation, *, min_rank: int, one_rank: bool
) -> LazyAdapter:
    """Check an update against what was sent, and what was asked for; one module at a time is in memory.

    Args:
        min_rank: no module may be below it that was not before.
        one_rank: the device decides over its ranks once for all modules, not for each.

    Raises:
        MalformedTensors, SpecMismatch: see `hetlora.partial.expand`.
        NonFiniteValues: see there; or the Frobenius norm of a factor, or of both multiplied, passes
            `LARGEST_NORM`.
        RankOutOfRange: modules of several ranks where equal ones were sent; or a rank below `min_rank` or
            above the one that was sent.
    """
    update = expand_lazily(source, adaptation, received)
    norms = {name: _norms(update.checked(name)) for name in update.ranks}
    _check_ranks(update.ranks, received.ranks, min_rank=min_rank, one_rank=one_rank)
    for name, (norm_A, norm_B) in norms.items():
        if max(norm_A, norm_B, norm_A * norm_B) > LARGEST_NORM:
            raise NonFiniteValues(
                f"factors of {name} in an update are too large",
                got=f"norms {norm_A:.3g} of lora_A, {norm_B:.3g} of lora_B",
                expected=f"each, and both multiplied, up to {LARGEST_NORM:.3g}",
            )
    return update


def _norms(factors: LoraFactors) -> tuple[float, float]:
    """The Frobenius norms of lora_A and lora_B in float64, of which no copy is made."""
    norm_A, norm_B = (
        math.sqrt(np.einsum("ij,ij->", own, own, dtype=np.float64))
        for own in (factors.lora_A, factors.lora_B)
    )
    return norm_A, norm_B


def _check_ranks(came: Mapping[str, int], sent: Mapping[str, int], *, min_rank: int, one_rank: bool) -> None:
    if one_rank and len(set(sent.values())) == 1 and len(ranks := sorted(set(came.values()))) > 1:
        raise RankOutOfRange("modules of an update must share one rank", got=f"ranks {ranks}")
    for name, rank in came.items():
        lowest = min(min_rank, sent[name])
        if not lowest <= rank <= sent[name]:
            raise RankOutOfRange(
                f"rank of {name} in an update", got=rank, expected=f"{lowest} to {sent[name]}"
            )
