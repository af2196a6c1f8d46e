"""Training that leads nowhere is given up before its time and battery are spent."""

from __future__ import annotations

import math

from hetlora.errors import TrainingDiverged
from hetlora.messages.device import TrainingSettings


class Divergence:
    """Looks at the loss of each step; `high_steps` is how many were high running.

    A loss is high above `divergence_factor` times the first. A first loss of 0, of a batch that taught
    nothing, is no measure: then none is.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings
        self.high_steps = 0

    def check(self, loss: float, first_loss: float, *, number: int) -> None:
        """Look at the loss of the `number`-th step of a round, from 1.

        Raises:
            TrainingDiverged: it is NaN or infinite, or one of too many high ones.
        """
        settings = self._settings
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"loss of step {number} of {settings.steps}", got=loss, expected="a finite number"
            )
        if settings.divergence_factor is None or first_loss <= 0:
            return
        most = settings.divergence_factor * first_loss
        self.high_steps = self.high_steps + 1 if loss > most else 0
        if self.high_steps >= settings.divergence_steps:
            raise TrainingDiverged(
                f"loss of {self.high_steps} steps running, up to step {number} of {settings.steps}",
                got=f"{loss:.6g}",
                expected=f"up to {most:.6g}, {settings.divergence_factor:g} times the first",
            )
