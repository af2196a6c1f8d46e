"""The door of the round: update bytes become an adapter, or a typed refusal."""

from __future__ import annotations

from typing import Final

import numpy as np

from hetlora.adapter import Adapter
from hetlora.errors import NonFiniteValues, RankOutOfRange
from hetlora.messages.device import Adaptation
from hetlora.partial import expand

# Far below what float32 can square, 1.8e19: optimizers store sums of squares over all rounds, and one device
# could make these pass float32, for good. Training comes nowhere near.
LARGEST_NORM: Final = 1e15


def validate_update(
    data: bytes, received: Adapter, adaptation: Adaptation, *, min_rank: int, one_rank: bool
) -> Adapter:
    """Read an update and check it against what was sent, and what was asked for.

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
    update = expand(data, received.spec, adaptation, received)
    sent = received.ranks
    if one_rank and len(set(sent.values())) == 1 and len(ranks := sorted(set(update.ranks.values()))) > 1:
        raise RankOutOfRange("modules of an update must share one rank", got=f"ranks {ranks}")
    for name, rank in update.ranks.items():
        lowest = min(min_rank, sent[name])
        if not lowest <= rank <= sent[name]:
            raise RankOutOfRange(
                f"rank of {name} in an update", got=rank, expected=f"{lowest} to {sent[name]}"
            )
    _check_norms(update)
    return update


def _check_norms(update: Adapter) -> None:
    for module, factors in update:
        norm_A, norm_B = (
            float(np.linalg.norm(own.astype(np.float64))) for own in (factors.lora_A, factors.lora_B)
        )
        if max(norm_A, norm_B, norm_A * norm_B) > LARGEST_NORM:
            raise NonFiniteValues(
                f"factors of {module.name} in an update are too large",
                got=f"norms {norm_A:.3g} of lora_A, {norm_B:.3g} of lora_B",
                expected=f"each, and both multiplied, up to {LARGEST_NORM:.3g}",
            )
