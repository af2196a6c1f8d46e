"""Updates in quarantine, and what a device's updates came to, as operators see them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from hetlora.digest import Sha256
from hetlora.messages.common import Identifier, Integer, Message, Timestamp
from hetlora.messages.screens import ScreenName
from hetlora.states import DeviceState, QuarantineState

QuarantineVerb = Literal["release", "confirm"]
# How many of a device's newest updates its standing looks at.
RECENT_UPDATES: Final = 100


class QuarantinedUpdate(Message):
    """An update that a screen took out of its round, and why."""

    assignment_id: Identifier
    run_id: Identifier
    round_index: Integer
    attempt: Integer
    device_id: Identifier
    device_name: str
    state: QuarantineState
    reason: str  # of the state
    screen: ScreenName
    finding: str
    figures: dict[str, float]  # value, the cohort's median, limit
    rank: Integer | None
    example_count: Integer
    sha256: Sha256
    size_bytes: Integer
    kept: bool  # whether its bytes are still there
    quarantined_at: Timestamp


class QuarantineDecision(Message):
    """Why an operator releases a quarantined update, or confirms it."""

    reason: str = Field(default="", max_length=1000)


class Reputation(Message):
    """How often which end came of a device's assignments, and how its newest updates did.

    `quarantined` are those that no operator released. `standing` is the share of the `recent_updates`, up to
    100, that are not among them; none without an update. Nothing is weighed by it.
    """

    device_id: Identifier
    state: DeviceState
    reason: str
    accepted: Integer
    quarantined: Integer
    released: Integer
    discarded: Integer  # for other reasons: late, or lost by the service
    failed: Integer
    expired: Integer
    aborted: Integer
    recent_updates: Integer
    recent_quarantined: Integer
    standing: float | None


class SuspensionRule(Message):
    """A device is suspended once so many of its newest updates were quarantined and not released."""

    quarantines: Annotated[int, Field(strict=True, ge=1, le=1000)]
    within_updates: Annotated[int, Field(strict=True, ge=1, le=10_000)]

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.quarantines > self.within_updates:
            raise ValueError(f"quarantines {self.quarantines} is above within_updates {self.within_updates}")
        return self


class SuspensionSetting(Message):
    """The rule of a population; none: no device of it is ever suspended by itself."""

    rule: SuspensionRule | None
