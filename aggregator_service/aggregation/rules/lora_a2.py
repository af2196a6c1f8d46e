"""LoRA-A2 (Koo, Jang, Ok, arXiv 2410.22815): factors take turns, and devices send the ranks that moved most.

    even round:  lora_B <- lora_B + sum_k p_k m_k dB_k,   lora_A stays
    odd round:   lora_A <- lora_A + sum_k p_k m_k dA_k,   lora_B stays

with p_k = n_k / sum_j n_j and m_k the 0/1 mask of the ranks that device k selected.

1. Send all of the global adapter, whatever rank a device took: that counts what it sends back.
2. Train the factor whose turn it is, lora_B at `lora_B_rate` times the learning rate (5 in the paper).
3. Score rank i of each module by ||dB[:, i] A[i, :]||_F, or ||B[:, i] dA[i, :]||_F, and send those of the
   largest r_k N scores over the whole model of N modules (`hetlora.selection`).
4. Add the mean of what came. Exact, as the other factor is the same for all; what a device did not select
   has not changed for it, and counts as that: ranks are not averaged over their owners.

Score and mask are equations (2) and (3) of the paper's first version, the mask being applied to what was
trained. Its later text also speaks of selecting ranks for training; here all of them are trained. lora_A is
frozen in even rounds, as in the paper; we read its rounds as counted from 0, or the first one would train
lora_A under a lora_B of zero, which has no gradient.
"""

from __future__ import annotations

from aggregator_service.aggregation.cutting import truncated
from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.rules.change_rule import ChangeRule
from aggregator_service.aggregation.rules.one_factor import factor_in_turn
from hetlora.messages.device import Adaptation
from hetlora.messages.rules import LoraA2Rule


class LoraA2(ChangeRule[LoraA2Rule]):
    """One factor a round, in turn; the mean of the changes of selected ranks."""

    @property
    def adaptation(self) -> Adaptation:
        turn = factor_in_turn(self.state.round_index)
        return Adaptation(trained=turn, lora_B_rate=self.settings.lora_B_rate)

    @property
    def trained_rank(self) -> int:
        return self.state.rank

    def handout(self, rank: int, seed: int) -> Handout:
        state, selected = self.state, rank * len(self.state.adapter.spec.modules)
        adaptation = self.adaptation.model_copy(update={"selected_ranks": selected})
        return Handout(truncated(state.adapter, state.rank), state.frozen, adaptation)
