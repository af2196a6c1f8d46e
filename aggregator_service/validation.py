"""The door of the round: update bytes become an adapter, or a typed refusal."""

from __future__ import annotations

from hetlora.adapter import Adapter, AdapterSpec
from hetlora.errors import RankOutOfRange
from hetlora.tensors import adapter_from_bytes


def validate_update(data: bytes, spec: AdapterSpec, *, min_rank: int, max_rank: int) -> Adapter:
    """Read an update and check it against the bundle's specification and the plan's ranks.

    Raises:
        MalformedTensors, SpecMismatch, NonFiniteValues: see `hetlora.tensors.adapter_from_bytes`.
        RankOutOfRange: modules of several ranks, or a rank outside `min_rank` to `max_rank`.
    """
    update = adapter_from_bytes(data, spec)
    ranks = sorted(set(update.ranks.values()))
    if len(ranks) > 1:
        raise RankOutOfRange("modules of an update must share one rank", got=f"ranks {ranks}")
    if not min_rank <= update.rank <= max_rank:
        raise RankOutOfRange("rank of the update", got=update.rank, expected=f"{min_rank} to {max_rank}")
    return update
