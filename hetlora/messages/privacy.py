"""Central differential privacy of runs, and the budget of a population (docs/privacy.md)."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from hetlora.messages.common import Integer, Message, Name, Timestamp

# Below them the noise that a computer makes is not what the accounting takes it for (docs/privacy.md).
LEAST_NOISE: Final = 0.2
LEAST_DELTA: Final = 1e-12
MOST_DELTA: Final = 0.1
LEAST_EPSILON: Final = 1e-6
MOST_EPSILON: Final = 1000.0
MOST_NOISE: Final = 1000.0


class PrivacySettings(Message):
    """How a run adds noise; `aggregator_service/aggregation/private_rule.py` computes it."""

    clip_norm: float = Field(
        strict=True,
        ge=1e-6,
        le=1e6,
        description="C: the longest that one update's part of a round's sum may be",
    )
    noise_multiplier: float = Field(
        strict=True,
        ge=LEAST_NOISE,
        le=MOST_NOISE,
        description="sigma: each number of the sum has noise of standard deviation sigma C",
    )
    weight_scale: float | None = Field(
        default=None,
        strict=True,
        ge=1e-9,
        le=1e9,
        description="c: what a weight of 1 adds to the clipped length; half of clip_norm if not given",
    )

    @property
    def weight_length(self) -> float:
        """`weight_scale`, or what stands for it."""
        return self.clip_norm / 2 if self.weight_scale is None else self.weight_scale


class PrivacyBudget(Message):
    """What all rounds of a population's runs may tell together of one device's part in one of them."""

    epsilon: float = Field(strict=True, ge=LEAST_EPSILON, le=MOST_EPSILON)
    delta: float = Field(strict=True, ge=LEAST_DELTA, le=MOST_DELTA)


class PrivacySpent(Message):
    """What was spent: (epsilon, delta) of all rounds up to some moment."""

    epsilon: float
    delta: float


class PrivacyStatus(Message):
    """The ledger of a population."""

    population: Name
    budget: PrivacyBudget
    spent: PrivacySpent
    rounds: Integer  # that spent something, those that were abandoned or are under way among them
    changed_at: Timestamp
