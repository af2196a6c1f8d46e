"""How a run is defended; `aggregator_service/aggregation/robust/` computes it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hetlora.messages.common import Identifier, Message, PositiveCount


class Defence(Message):
    """What stands between hostile updates and the rule; norms and distances are of changes of products B A.

    - `clip`: every change is cut to `clip_factor` times the median norm of the round, and so are the movement
      of its factors and its example count.
    - `method` screens updates or replaces what they moved; `hostile_share` is the share of hostile updates
      that it is to withstand. With a method every update counts as one example. Krum and the geometric median
      want `clip` beside them under rules that average factors: they see products alone, and a small product
      can have large factors.
    - `max_updates`: methods that compare all updates, all but fltrust, refuse a round of more.
    - `quorum`: a rank that fewer updates hold stays as it was sent; below 3, one wide device can own a tail.
      The trimmed mean and the median want 3 owners in any case.
    - `trusted_device`: its update is what fltrust measures all others by; the operator's own, on clean data.
    """

    method: Literal["none", "krum", "multi_krum", "geometric_median", "fltrust", "trimmed_mean", "median"] = (
        "none"
    )
    clip: bool = False
    clip_factor: float = Field(default=2.0, gt=0)
    hostile_share: float = Field(default=0.2, ge=0, lt=0.5)
    max_updates: PositiveCount = 1024
    quorum: PositiveCount = 1
    trusted_device: Identifier | None = None

    @model_validator(mode="after")
    def _has_whom_it_trusts(self) -> Self:
        if (self.method == "fltrust") != (self.trusted_device is not None):
            raise ValueError("fltrust, and no other method, needs a trusted_device")
        return self
