"""FSLoRA, federated sketching LoRA (Fang et al., arXiv 2501.19389): a device trains some of the global ranks.

    device k computes with  W0 + scaling B S_k A,   S_k diagonal, R / r_k at r_k random ranks and 0 elsewhere
    lora_B <- lora_B + 1/K sum_k dB_k,   lora_A <- lora_A + 1/K sum_k dA_k

1. Draw r_k of the R global ranks, each set as likely as any other: E S_k = I, so that the model a device
   computes with is the global one in expectation, and its gradient by B and A unbiased for a loss that is
   linear in the product.
2. Send those columns of lora_B and rows of lora_A, and R / r_k as the amplification. What is trained and
   sent back is B and A themselves.
3. Add the mean change. A rank that a device was not sent has not changed for it, and the mean is over all
   devices: over the owners alone, the amplification would count twice.

The draw is one for all modules (the paper has one S_k for a module and leaves open whether they are equal),
from the seed of the device in the round. The paper averages all devices alike (`weights`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.rules.change_rule import ChangeRule
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of, zeros
from hetlora.messages.device import Adaptation
from hetlora.messages.rules import FsLoraRule


class FsLora(ChangeRule[FsLoraRule]):
    """The mean change of randomly selected ranks."""

    adds_changes = True

    def handout(self, rank: int, seed: int) -> Handout:
        drawn = np.random.default_rng(seed).choice(self.state.rank, rank, replace=False)
        return self.sketch(sorted(map(int, drawn)))

    def sketch(self, ranks: Sequence[int]) -> Handout:
        """What a device is sent that drew these ranks, ascending."""
        adaptation = Adaptation(ranks=tuple(ranks), amplification=self.state.rank / len(ranks))
        return Handout(_selected(self.state.adapter, ranks), self.state.frozen, adaptation)


def _selected(adapter: StackedAdapter, ranks: Sequence[int]) -> StackedAdapter:
    result = zeros(adapter.spec, [len(ranks)] * len(groups_of(adapter.spec)), np.float32)
    for into, stack in zip(result, adapter, strict=True):
        into.lora_A[:] = stack.lora_A[:, ranks]
        into.lora_B[:] = stack.lora_B[:, :, ranks]
    return result
