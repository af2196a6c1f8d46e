"""One result whatever the order of arrival: a fixed reduction tree over sorted update ids.

Floating-point addition is not associative, so the sorted ids alone fix the shape of the sum: leaves of
`LEAF_SIZE` updates summed in order, then merged pairwise as a binary counter carries (the largest power of
two of leaves that leaves a rest, reduced, plus that rest, reduced). At most log2(leaves) + 2 partials are
alive at a time; beside them only one float per update is kept, its weight.

One process reduces a round so far. Replicas that each reduced whole subtrees would give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from hetlora.adapter import Adapter

# In-place sums are cheaper than merges; part of the result's definition: another size, other last bits.
LEAF_SIZE: Final = 16

Partial = TypeVar("Partial")


class Rule(Protocol[Partial]):
    """Turns a stream of updates into one adapter; a partial of many is as small as a partial of one."""

    def init(self) -> Partial:
        """The partial of no update."""
        ...

    def accumulate(self, partial: Partial, update: Adapter) -> float:
        """Add one update in place and return its raw weight, before normalising over the cohort."""
        ...

    def merge(self, left: Partial, right: Partial) -> Partial:
        """The partial of both; either argument may be changed and must not be used again."""
        ...

    def weight(self, total: Partial, raw: float) -> float:
        """The aggregation weight, within the cohort of `total`, of an update with this raw weight."""
        ...

    def finish(self, total: Partial) -> Adapter:
        """The new global adapter."""
        ...


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The new global adapter, and the aggregation weight of each update by its id."""

    adapter: Adapter
    weights: dict[str, float]


def aggregate(rule: Rule[Partial], update_ids: Iterable[str], load: Callable[[str], Adapter]) -> Aggregate:
    """Reduce updates, loading one at a time.

    Args:
        update_ids: ids that name the updates' content (equal ids are equal updates, and each counts);
            at least one.
        load: reads the update of an id.
    """
    ordered = sorted(update_ids)
    raw: dict[str, float] = {}
    stack: list[tuple[int, Partial]] = []  # (height, partial), heights falling
    for start in range(0, len(ordered), LEAF_SIZE):
        partial, height = rule.init(), 0
        for update_id in ordered[start : start + LEAF_SIZE]:
            raw[update_id] = rule.accumulate(partial, load(update_id))
        while stack and stack[-1][0] == height:
            partial, height = rule.merge(stack.pop()[1], partial), height + 1
        stack.append((height, partial))
    total = stack.pop()[1]
    while stack:
        total = rule.merge(stack.pop()[1], total)
    return Aggregate(
        rule.finish(total), {update_id: rule.weight(total, value) for update_id, value in raw.items()}
    )
