"""The learning rate over the steps of a round."""

from __future__ import annotations

import math

from hetlora.messages.device import TrainingSettings


def learning_rate_at(settings: TrainingSettings, number: int) -> float:
    """The learning rate of the `number`-th step of a round, counted from 1.

    It rises by equal parts over `warm_up_steps` and is whole in the one after them. A falling schedule begins
    there, and would be at 0 in the step after the last: no step is taken in vain.
    """
    before = settings.warm_up_steps
    if number <= before:
        return settings.learning_rate * number / (before + 1)
    done = (number - 1 - before) / (settings.steps - before)
    factors = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return settings.learning_rate * max(factors[settings.schedule], 0.0)
