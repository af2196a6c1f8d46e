"""The door of the round: update bytes become an adapter, or a typed refusal."""

from __future__ import annotations

from hetlora.adapter import Adapter
from hetlora.errors import RankOutOfRange
from hetlora.messages.device import Adaptation
from hetlora.partial import expand


def validate_update(
    data: bytes, received: Adapter, adaptation: Adaptation, *, min_rank: int, one_rank: bool
) -> Adapter:
    """Read an update and check it against what was sent, and what was asked for.

    Args:
        min_rank: no module may be below it that was not before.
        one_rank: the device decides over its ranks once for all modules, not for each.

    Raises:
        MalformedTensors, SpecMismatch, NonFiniteValues: see `hetlora.partial.expand`.
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
    return update
