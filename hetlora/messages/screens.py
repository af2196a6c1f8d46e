"""Which accepted updates a run takes out of its rounds; `aggregation/screens.py` computes it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from hetlora.messages.common import Message, PositiveCount

ScreenName = Literal["norm", "direction", "loss"]
# Of fewer, a median and a deviation tell nothing of who is the odd one.
LEAST_COHORT: Final = 5

Deviations = Annotated[float, Field(ge=1, le=1e6)]


class Screens(Message):
    """Screens of the updates of a round; an update that does not pass is kept apart, with the reason.

    A limit is so many deviations from the cohort's median; null switches a screen off. The deviation is the
    median absolute one, scaled to a normal distribution's, and never below a floor of each measure.
    """

    norm: Deviations | None = Field(
        default=6.0,
        description="how far above the median the length of a change, and of what its factors moved, may be, "
        "in logarithms; lengths of changes are compared over the square root of their rank",
    )
    direction: Deviations | None = Field(
        default=3.0, description="how far below the others' an update's median cosine with the others may be"
    )
    spared_cosine: float = Field(
        default=0.1,
        ge=-1,
        le=1,
        description="of direction: an update whose median cosine is not below this stays",
    )
    loss: Deviations | None = Field(
        default=6.0,
        description="how far from the median, in logarithms, losses before training may be on either side, "
        "and losses after it above",
    )
    minimum_cohort: int = Field(
        default=LEAST_COHORT,
        strict=True,
        ge=LEAST_COHORT,
        le=1_000_000,
        description="of fewer updates that have a measure, its screen says nothing",
    )
    max_updates: PositiveCount = Field(
        default=1024,
        description="of direction, which compares all updates: a run whose rounds may have more is refused",
    )

    @model_validator(mode="after")
    def _has_a_screen(self) -> Self:
        if self.norm is None and self.direction is None and self.loss is None:
            raise ValueError("every screen is off; leave screens out")
        return self
