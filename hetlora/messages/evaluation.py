"""Messages of evaluation tasks: what a run asks for, what a device reports, what becomes of the reports."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from hetlora.messages.common import YEAR_SECONDS, Count, Integer, Message, PositiveCount, Timestamp
from hetlora.states import EvaluationState

# A loss beyond it is as good as none: uniform guessing among 10^9 tokens has a loss of 21.
MAX_LOSS: Final = 1e6
MAX_EXAMPLES: Final = 1_000_000
MINIMUM_REPORTS: Final = 3


class EvaluationSettings(Message):
    """When adapter versions of a run are evaluated on devices, and on how many."""

    every_rounds: int = Field(
        default=1,
        strict=True,
        ge=1,
        le=100_000,
        description="versions of every so many committed rounds, and the last, count",
    )
    devices: int = Field(strict=True, ge=1, le=100_000, description="reports that end an evaluation")
    minimum_reports: Annotated[int, Field(strict=True, ge=2, le=100_000)] = Field(
        default=MINIMUM_REPORTS,
        description="an evaluation that ends with fewer has no figures: they would be a device's own",
    )
    window_seconds: float = Field(
        default=3600, ge=1, le=YEAR_SECONDS, description="how long an evaluation takes reports at most"
    )
    lease_seconds: float | None = Field(
        default=None, ge=1, le=YEAR_SECONDS, description="how long a device may take; none: as for training"
    )

    @model_validator(mode="after")
    def _can_have_figures(self) -> Self:
        if self.minimum_reports > self.devices:
            raise ValueError(f"minimum_reports {self.minimum_reports} is above devices {self.devices}")
        return self


class EvaluationReport(Message):
    """How an adapter version did on examples that a device keeps from training."""

    example_count: int = Field(strict=True, ge=1, le=MAX_EXAMPLES)
    loss: float = Field(ge=0, le=MAX_LOSS)  # the mean over the examples, or over the tokens of their answers
    correct_count: Count | None = None  # where the model tells classes apart

    @model_validator(mode="after")
    def _has_no_more_right_than_there_are(self) -> Self:
        if self.correct_count is not None and self.correct_count > self.example_count:
            raise ValueError(
                f"correct_count {self.correct_count} is above example_count {self.example_count}"
            )
        return self


class EvaluationFigures(Message):
    """What the reports of an evaluation come to; `accuracy` and its kin are there for classifiers alone."""

    example_count: PositiveCount
    loss: float  # over all examples
    device_loss: float  # over devices, each counting the same, and its standard deviation among them
    device_loss_deviation: float
    accuracy: float | None = None
    device_accuracy: float | None = None
    device_accuracy_deviation: float | None = None


class EvaluationStatus(Message):
    """An evaluation as operators see it: nothing of a single device."""

    state: EvaluationState
    reason: str
    devices: Integer  # reports wanted
    reports: Integer  # reports that came
    figures: EvaluationFigures | None  # once it is closed, where there were reports enough
    window_closes_at: Timestamp
    ended_at: Timestamp | None
