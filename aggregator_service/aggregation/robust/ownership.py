"""Which global ranks an update holds, how many updates hold one, and a quorum for it.

With means over the owners of a rank, one wide device owns the tail that it alone holds: the breakdown point
is one client (methods.md, D.3). With a quorum, a rank that fewer updates hold stays as each was sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.robust.line import at_share
from aggregator_service.aggregation.rule import Update
from hetlora.errors import RankOutOfRange

Masks = list[NDArray[np.bool_]]  # (modules, global ranks), group by group


@dataclass(frozen=True, slots=True, eq=False)
class HeldRanks:
    """The rank of each module of an update, group by group, and the global rank of each of its ranks."""

    ranks: tuple[NDArray[np.intp], ...]
    places: NDArray[np.intp]

    @property
    def width(self) -> int:
        """One beyond the highest global rank."""
        widest = max(int(own.max()) for own in self.ranks)
        return int(self.places[:widest].max()) + 1 if widest else 0

    def held(self, group: int, width: int) -> NDArray[np.bool_]:
        """(modules, width): whether a module holds a global rank."""
        own = self.ranks[group]
        widest = int(own.max())
        result = np.zeros((len(own), width), np.bool_)
        result[:, self.places[:widest]] = np.arange(widest) < own[:, None]
        return result


def holding(update: Update) -> HeldRanks:
    """What an update holds.

    Raises:
        RankOutOfRange: it is wider than its selection of ranks.
    """
    ranks, widest = update.adapter.ranks, update.adapter.rank
    places = range(widest) if update.ranks is None else update.ranks
    if len(places) < widest:
        raise RankOutOfRange("update is wider than its selection", got=widest, expected=f"0 to {len(places)}")
    return HeldRanks(tuple(ranks), np.array(places, np.intp))


def owners_of(updates: Iterable[Update]) -> list[NDArray[np.intp]]:
    """How many of these hold each global rank of each module: (modules, width), group by group.

    Raises:
        RankOutOfRange: an update is wider than its selection of ranks.
    """
    result: list[NDArray[np.intp]] = []
    for update in updates:
        own = holding(update)
        result = result or [np.zeros((len(ranks), 0), np.intp) for ranks in own.ranks]
        wider = max(own.width - result[0].shape[1], 0)
        result = [np.pad(count, ((0, 0), (0, wider))) for count in result] if wider else result
        for group, count in enumerate(result):
            count += own.held(group, count.shape[1])
    return result


def unmoved_at(update: Update, ranks: Masks) -> Update:
    """The update with these global ranks as they were sent."""
    held = holding(update)
    still = at_share(update, 0.0).adapter
    result = update.adapter.with_values(update.adapter.values.copy())
    for group, (into, sent) in enumerate(zip(result, still, strict=True)):
        back = ranks[group][:, held.places[: into.rank]]
        into.lora_A[:] = np.where(back[:, :, None], sent.lora_A[:, : into.rank], into.lora_A)
        into.lora_B[:] = np.where(back[:, None, :], sent.lora_B[:, :, : into.rank], into.lora_B)
    return replace(update, adapter=result)
