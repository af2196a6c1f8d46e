"""Screens of a cohort: which updates stand so far from all others that they are taken out of the round.

norm        ||D_k|| / sqrt(rank), and the movement of the factors (`robust/line.py`), in logarithms, above
direction   the median over the others of cos(D_k, D_j), below
loss        losses reported of what was sent, in logarithms, on both sides; losses after training, above

with D_k what device k changed, B_k A_k - M_k. A limit is so many deviations from the cohort's median; a
deviation is 1.4826 times the median absolute one (a normal distribution's standard deviation), or its
measure's floor if that is more: where all but one agree to the bit, the median absolute deviation is zero.

1. Lengths grow with the rank, as the square root where a further rank learns something of its own. So widths
   differ without anybody being odd. No update is taken out for being short.
2. Movement is compared beside the norm, since (c B, A / c) is the product (B, A) and is worth c times B to a
   rule that averages factors.
3. The median of cosines does not follow a minority that agrees with itself alone, as a mean would. An update
   with a median cosine of at least `spared_cosine` stays: a device with data of its own kind is not hostile.
4. All devices of a round were sent much the same, so a loss before training that is far too small is as odd
   as one that is too large. After training a small one is what training is for.

An update is judged by the first measure that it fails, in this order. Updates that changed nothing, and
losses that nobody told, are no part of their measure. Medians are over all updates, whatever their weight: of
a hostile half or more they tell nothing, and an attacker within the limits is not found; what it does then,
`Defence.clip` bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from aggregator_service.aggregation.robust.gram import gram_matrix
from aggregator_service.aggregation.robust.line import line_of
from aggregator_service.aggregation.rule import UpdateRef
from aggregator_service.aggregation.stacks import Floats
from aggregator_service.aggregation.tree import Load, one_thread
from hetlora.messages.screens import ScreenName, Screens

LossName = Literal["first_loss", "last_loss", "held_out_loss_before", "held_out_loss_after"]
# Of what all devices were sent: these may be too small as well.
BEFORE_TRAINING: Final = ("first_loss", "held_out_loss_before")
AFTER_TRAINING: Final = ("last_loss", "held_out_loss_after")

NORMAL: Final = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
# Six of these make a length 4.5 times the median, three a cosine 0.15 below it, six a loss 20 times.
NORM_FLOOR: Final = 0.25
COSINE_FLOOR: Final = 0.05
LOSS_FLOOR: Final = 0.5
LEAST_LOSS: Final = 1e-6  # what is zero or below counts as this


@dataclass(frozen=True, slots=True)
class Candidate:
    """An update to be looked at, and the losses that its device told, by name."""

    ref: UpdateRef
    losses: Mapping[LossName, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an update does not pass: what was measured of it, the cohort's median, and the limit."""

    screen: ScreenName
    measure: str
    value: float
    median: float
    limit: float

    @property
    def figures(self) -> dict[str, float]:
        """The numbers by name."""
        return {"value": self.value, "median": self.median, "limit": self.limit}

    def in_words(self) -> str:
        """For operators, and for the device's own log."""
        bound = "at least" if self.value < self.limit else "at most"
        told = f"{self.measure} {self.value:.4g}, the cohort's median {self.median:.4g}"
        return f"{told}, {bound} {self.limit:.4g}"


def screened(settings: Screens, cohort: Sequence[Candidate], load: Load) -> list[Finding | None]:
    """What the screens find in each update of a cohort, in its order; None where it passes.

    The order of the cohort is of no account, and neither is who does it: equal cohorts are judged alike.

    Args:
        load: reads the update of a ref, with what its device was sent.

    Raises:
        NonFiniteValues: NaN or infinity in an update.
    """
    found: list[Finding | None] = [None] * len(cohort)
    screens: tuple[tuple[float | None, Callable[..., list[Finding | None]]], ...] = (
        (settings.norm, _norms),
        (settings.direction, _directions),
        (settings.loss, _losses),
    )
    with one_thread():
        for deviations, screen in screens:
            if deviations is not None:
                new = screen(settings, deviations, cohort, load)
                found = [own or other for own, other in zip(found, new, strict=True)]
    return found


def _norms(
    settings: Screens, deviations: float, cohort: Sequence[Candidate], load: Load
) -> list[Finding | None]:
    lengths: dict[UpdateRef, tuple[float, float, float]] = {}
    for ref in sorted({own.ref for own in cohort}):
        update = load(ref)
        line = line_of(update)
        lengths[ref] = line.norm(), line.movement, math.sqrt(max(update.adapter.rank, 1))
    norms, movements, roots = np.array([lengths[own.ref] for own in cohort]).reshape(-1, 3).T
    return _first(
        _above(settings, deviations, "norm", "norm", norms, NORM_FLOOR, roots),
        _above(settings, deviations, "norm", "movement", movements, NORM_FLOOR),
    )


def _directions(
    settings: Screens, deviations: float, cohort: Sequence[Candidate], load: Load
) -> list[Finding | None]:
    found: list[Finding | None] = [None] * len(cohort)
    distinct = sorted({own.ref for own in cohort})
    number_of = {ref: number for number, ref in enumerate(distinct)}
    places = [number_of[own.ref] for own in cohort]
    gram = gram_matrix(distinct, load)[np.ix_(places, places)]
    lengths = np.sqrt(np.diagonal(gram))
    moved = np.flatnonzero(lengths > 0)
    if len(moved) < settings.minimum_cohort:
        return found
    cosines = gram[np.ix_(moved, moved)] / np.outer(lengths[moved], lengths[moved])
    own = np.array([np.median(np.delete(row, number)) for number, row in enumerate(cosines)])
    median, deviation = _spread(own, COSINE_FLOOR)
    limit = min(settings.spared_cosine, median - deviations * deviation)
    for number, value in zip(moved, own, strict=True):
        if value < limit:
            found[number] = Finding("direction", "median cosine with the others", float(value), median, limit)
    return found


def _losses(
    settings: Screens, deviations: float, cohort: Sequence[Candidate], load: Load
) -> list[Finding | None]:
    found: list[Finding | None] = [None] * len(cohort)
    for name in (*BEFORE_TRAINING, *AFTER_TRAINING):
        told = [number for number, own in enumerate(cohort) if name in own.losses]
        values = np.array([max(cohort[number].losses[name], LEAST_LOSS) for number in told])
        measure = name.replace("_", " ")
        new = _above(settings, deviations, "loss", measure, values, LOSS_FLOOR)
        if name in BEFORE_TRAINING:
            new = _first(new, _above(settings, deviations, "loss", measure, values, LOSS_FLOOR, below=True))
        for number, own in zip(told, new, strict=True):
            found[number] = found[number] or own
    return found


def _above(
    settings: Screens,
    deviations: float,
    screen: ScreenName,
    measure: str,
    values: Floats,
    floor: float,
    units: Floats | None = None,
    below: bool = False,
) -> list[Finding | None]:
    """Those of positive values that are too far above the median of their logarithms, or below it.

    Args:
        units: what each value is compared in; findings tell it as it came, and the limit for its unit.
    """
    found: list[Finding | None] = [None] * len(values)
    units = np.ones(len(values)) if units is None else units
    positive = np.flatnonzero(values > 0)
    if len(positive) < settings.minimum_cohort:
        return found
    logs = np.log(values[positive] / units[positive])
    median, deviation = _spread(logs, floor)
    limit = median + (-deviations if below else deviations) * deviation
    for number, log in zip(positive, logs, strict=True):
        if (log < limit) if below else (log > limit):
            unit = float(units[number])
            told = float(values[number]), unit * _power(median), unit * _power(limit)
            found[number] = Finding(screen, measure, *told)
    return found


def _power(log: float) -> float:
    """e to it, or a number that JSON can still tell: a limit may be a million deviations away."""
    return math.exp(min(log, 700.0))


def _spread(values: Floats, floor: float) -> tuple[float, float]:
    """The median, and the deviation that limits are counted in."""
    median = float(np.median(values))
    return median, max(NORMAL * float(np.median(np.abs(values - median))), floor)


def _first(left: Sequence[Finding | None], right: Sequence[Finding | None]) -> list[Finding | None]:
    return [own or other for own, other in zip(left, right, strict=True)]
