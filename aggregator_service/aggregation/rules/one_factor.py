"""What the rules share whose devices send one factor: its mean is exact, as the other is everyone's.

    sum_k p_k B_k A = (sum_k p_k B_k) A

With unequal ranks all devices hold prefixes of one other factor, and each rank is averaged over its owners,
as in RBLA: the papers have equal ranks and leave it open.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np

from aggregator_service.aggregation.rules.base import FactorRule, Settings
from aggregator_service.aggregation.slice_sum import SliceSum
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.messages.device import Adaptation

Factor = Literal["lora_A", "lora_B"]


def factor_in_turn(round_index: int) -> Factor:
    """lora_B in the first round and every second one after it, lora_A in between.

    lora_B begins at zero, where the gradient of lora_A is zero too: a first round of it would be lost.
    """
    return "lora_B" if round_index % 2 == 0 else "lora_A"


class OneFactorRule(FactorRule[Settings]):
    """The mean of the factor that is sent, over the owners of each rank; a rank that has none stays."""

    @property
    @abstractmethod
    def sent(self) -> Factor:
        """The factor that devices send; the other one stays as it is."""

    @property
    def adaptation(self) -> Adaptation:
        return Adaptation(trained=self.sent)

    def mean(self, total: SliceSum) -> StackedAdapter:
        mean = total.divided(total.held)
        for stack, before, held in zip(mean, self.state.adapter, total.held, strict=True):
            if self.sent == "lora_B":
                stack.lora_A[:] = before.lora_A
                stack.lora_B[:] = np.where(held[:, None, :] > 0, stack.lora_B, before.lora_B)
            else:
                stack.lora_A[:] = np.where(held[:, :, None] > 0, stack.lora_A, before.lora_A)
                stack.lora_B[:] = before.lora_B
        return mean
