"""When a run begins and ends by itself."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hetlora.messages.common import Message, Timestamp
from hetlora.messages.evaluation import MAX_LOSS


class StopRules(Message):
    """What ends a run before its last round; any of them does. Scores are those of evaluations on devices."""

    accuracy: float | None = Field(default=None, gt=0, le=1, description="reached: the run is completed")
    loss: float | None = Field(default=None, ge=0, le=MAX_LOSS, description="reached: the run is completed")
    patience: Annotated[int | None, Field(strict=True, ge=1, le=100_000)] = Field(
        default=None, description="evaluations in a row without a lower loss than before complete the run"
    )
    abandoned_rounds: Annotated[int | None, Field(strict=True, ge=1, le=100_000)] = Field(
        default=None, description="attempts at one round that were abandoned, after which the run has failed"
    )

    @property
    def look_at_scores(self) -> bool:
        """Whether evaluations are needed."""
        return (self.accuracy, self.loss, self.patience) != (None, None, None)


class Schedule(Message):
    """When a run starts, if nobody starts it before, and when it is stopped."""

    start_at: Timestamp | None = None
    stop_at: Timestamp | None = None

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> Self:
        if self.start_at is not None and self.stop_at is not None and self.stop_at <= self.start_at:
            raise ValueError(f"stop_at {self.stop_at} is not after start_at {self.start_at}")
        return self
