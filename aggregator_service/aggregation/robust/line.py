"""The straight line of factors from what a device was sent to what it sent back, and the norm along it.

    B(t) = B_0 + t dB,   A(t) = A_0 + t dA,   D(t) = B(t) A(t) - B_0 A_0 = t (dB A_0 + B_0 dA) + t^2 dB dA

so that ||D(t)||^2 = linear t^2 + 2 mixed t^3 + quadratic t^4, from rank x rank Gram matrices of dB, B_0, A_0
and dA over all modules. D(1) is what the device changed. Nothing cancels: a device that learned nothing has
the norm zero, to the bit.

t D(1) itself is of rank 2r in general, and no rule over factors could take it. A point of this line keeps
what the update is made of: its rank, a factor that was not trained, ranks that were not selected, entries
that were not sent. Where one factor is trained (or a core), D(t) = t D(1). A device that was cut below the
rank that it was sent (self-pruning) is padded with zeros; its points for t < 1 have the rank it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.stacks import Stack, StackedAdapter, zeros_of

HALVINGS: Final = 400  # 2^-400 of the way is below any change that float32 factors can call for


@dataclass(frozen=True, slots=True)
class Line:
    """The norms of one update's line; `movement` is the root mean square of dB's and dA's entries."""

    linear: float
    mixed: float
    quadratic: float
    movement: float

    def norm(self, share: float = 1.0) -> float:
        """||D(share)||_F over all modules, scaling left out."""
        slope = self.linear + share * (2 * self.mixed + share * self.quadratic)
        return share * math.sqrt(max(slope, 0.0))  # rounding can leave a tiny negative sum

    def share_within(self, norm: float, movement: float) -> float:
        """The share of the way, 1 at most, at which neither limit is passed; 1 if none is at all of it.

        The norm need not rise all along the line. What is found is a point where it is within its limit and
        about to pass it, whatever the line.
        """
        whole = 1.0 if self.movement <= movement else movement / self.movement
        return self._crossing(0.0, whole, norm)

    def share_matching(self, norm: float, movement: float) -> float:
        """The share of the way, beyond 1 too, at which the norm is this one; less where movement ends it."""
        if self.norm() == 0 or self.movement == 0:
            return 0.0
        whole = movement / self.movement
        if whole <= 1 or self.norm() >= norm:
            return self.share_within(norm, movement)
        return self._crossing(1.0, whole, norm)

    def _crossing(self, low: float, high: float, norm: float) -> float:
        """By bisection: the norm is within its limit at `low`, and at `high` unless that is the answer."""
        if self.norm(high) <= norm:
            return high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self.norm(middle) <= norm:
                low = middle
            else:
                high = middle
            if high - low <= 1e-14 * high:
                break
        return low


def line_of(update: Update) -> Line:
    """The norms of an update's line."""
    linear = mixed = quadratic = squares = 0.0
    numbers = 0
    for sent, moved in steps(update):
        rank = sent.rank
        columns = np.concatenate([moved.lora_B, sent.lora_B], axis=2)
        rows = np.concatenate([sent.lora_A, moved.lora_A], axis=1)
        left, right = columns.swapaxes(1, 2) @ columns, rows @ rows.swapaxes(1, 2)
        linear += float(np.sum(left * right))
        mixed += float(np.sum(left[:, :, :rank] * right[:, :, rank:]))
        quadratic += float(np.sum(left[:, :rank, :rank] * right[:, rank:, rank:]))
        squares += float(np.sum(moved.lora_A**2) + np.sum(moved.lora_B**2))
        numbers += moved.lora_A.size + moved.lora_B.size
    return Line(linear, mixed, quadratic, math.sqrt(squares / max(numbers, 1)))


def steps(update: Update) -> Iterator[tuple[Stack, Stack]]:
    """(A_0, B_0) and (dA, dB) of each group in float64, both as wide as the wider of the two adapters."""
    assert update.received is not None, "a change is against what was sent"
    return map(step, update.received, update.adapter)


def step(before: Stack, after: Stack) -> tuple[Stack, Stack]:
    """(A_0, B_0) and (dA, dB) of one group, or of some of its modules."""
    rank = max(before.rank, after.rank)
    sent, came = _padded(before, rank), _padded(after, rank)
    return sent, Stack(came.lora_A - sent.lora_A, came.lora_B - sent.lora_B)


def at_share(update: Update, share: float) -> Update:
    """The update this share of its way from what was sent; itself, to the bit, at 1."""
    if share == 1.0:
        return update
    result = wide_as_both(update)
    for into, (sent, moved) in zip(result, steps(update), strict=True):
        into.lora_A[:] = sent.lora_A + share * moved.lora_A
        into.lora_B[:] = sent.lora_B + share * moved.lora_B
    return replace(update, adapter=result)


def wide_as_both(update: Update) -> StackedAdapter:
    """Zeros in float32, each module at the larger of the ranks that were sent and that came."""
    assert update.received is not None, "a change is against what was sent"
    ranks = [np.maximum(*own) for own in zip(update.received.ranks, update.adapter.ranks, strict=True)]
    return zeros_of(update.adapter.spec, ranks, np.float32)


def _padded(stack: Stack, rank: int) -> Stack:
    count, own, wide = stack.lora_A.shape
    lora_A, lora_B = np.zeros((count, rank, wide)), np.zeros((count, stack.lora_B.shape[1], rank))
    lora_A[:, :own], lora_B[:, :, :own] = stack.lora_A, stack.lora_B
    return Stack(lora_A, lora_B)
