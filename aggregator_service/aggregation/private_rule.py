"""Central differential privacy around a rule of one weighted sum (docs/privacy.md has the proof).

    v_k = w_k (x_k - x, c),   v_k <- v_k min(1, L / ||v_k||)        of each update; L^2 = C^2 - (C / 4)^2
    t_k = C / 4 if that made it shorter, else 0
    (S, c W, T) = sum_k (v_k, t_k) + N(0, (sigma C)^2) for each     the one thing that is released
    x <- x + S / max(W, sigma C / c)                                post-processing

with x_k - x what device k changed in the factors that it sends, w_k the rule's own weight for its update, and
c the setting `weight_scale`. Weights that follow from data, such as HetLoRA's norms, are within the clip, as
they are numbers of the vector that is clipped: leaving a device out moves (S, c W, T) by C at most.
T tells how many updates were clipped: a version's figures go wherever its adapter goes. It costs 3 % of C.

The change is averaged, not the factors: a rank that few hold stays, where zero-padding would shrink it.
W may come out small or negative by chance; below the noise's own size the step is held to that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np

from aggregator_service.aggregation.change_sum import ChangeSum, change_norm
from aggregator_service.aggregation.finite import FiniteCheck
from aggregator_service.aggregation.noise import gaussian_noise
from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.stacks import StackedAdapter
from hetlora.messages.device import Adaptation
from hetlora.messages.privacy import PrivacySettings
from hetlora.messages.rules import FfaRule, HetLoraRule, RoLoraRule, ZeroPadRule
from hetlora.sent_parts import LORA_A, LORA_B, sent_places

# Those whose result is one quotient of weighted sums, over factors that all devices mean the same by.
PRIVATE_RULES: Final = (HetLoraRule, ZeroPadRule, FfaRule, RoLoraRule)

TOLD: Final = 1 / 4  # of C: what tells that an update was clipped
KEPT: Final = math.sqrt(1 - TOLD**2)  # of C: what is left for the update itself


@dataclass(slots=True)
class PrivateSum:
    """Clipped contributions: what they change, their weights, and how many were longer than the clip."""

    changes: ChangeSum
    clipped: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRule(RoundRule[Any]):
    """A rule's weights and plans around a sum with noise; a round is not finished without its `noise_key`."""

    rule: RoundRule[Any]
    privacy: PrivacySettings
    noise_key: bytes = b""

    finite: ClassVar[FiniteCheck] = "read"
    compares: ClassVar[bool] = True

    @classmethod
    def around(cls, rule: RoundRule[Any], privacy: PrivacySettings, noise_key: bytes = b"") -> PrivateRule:
        """One round of `rule` with noise."""
        return cls(rule.settings, rule.state, rule=rule, privacy=privacy, noise_key=noise_key)

    @property
    def adaptation(self) -> Adaptation:
        return self.rule.adaptation

    def init(self) -> PrivateSum:
        return PrivateSum(ChangeSum.zero(self.spec, self.state.rank))

    def accumulate(self, partial: PrivateSum, leaf: Sequence[Update]) -> list[float]:
        shares = []
        for update, weight in zip(leaf, self._weights(leaf), strict=True):
            length = weight * math.hypot(change_norm(update), self.privacy.weight_length)
            share = min(1.0, KEPT * self.privacy.clip_norm / length) if length > 0 else 1.0
            partial.changes.add(update, share * weight)
            partial.clipped += share < 1
            partial.count += 1
            shares.append(share * weight)
        return shares

    def _weights(self, leaf: Sequence[Update]) -> list[float]:
        """The weights that the rule itself gives, before normalising."""
        weights = self.rule.weights_of(leaf)
        if not isinstance(self.settings, HetLoraRule):
            return weights
        squares = [squared_norms(update.adapter) for update in leaf]
        return [math.sqrt(sum(float(own.sum()) for own in squared)) for squared in squares]

    def merge(self, left: PrivateSum, right: PrivateSum) -> PrivateSum:
        left.changes.merge(right.changes)
        left.clipped += right.clipped
        left.count += right.count
        return left

    def weight(self, total: PrivateSum, raw: float) -> float:
        """An update's share of the weights as they were summed, without the noise."""
        return raw / total.changes.weight if total.changes.weight > 0 else 1 / total.count

    def finish(self, total: PrivateSum) -> GlobalState:
        assert self.noise_key, "a private sum is never released as it is"
        deviation = self.privacy.noise_multiplier * self.privacy.clip_norm
        scale = self.privacy.weight_length
        noise = deviation * gaussian_noise(self.noise_key, total.changes.values.values.size + 2)
        weight = max(total.changes.weight + float(noise[-2]) / scale, deviation / scale)
        step = total.changes.values.with_values((total.changes.values.values + noise[:-2]) / weight)
        clipped = total.clipped + float(noise[-1]) / (TOLD * self.privacy.clip_norm)
        clipped_share = min(max(clipped / total.count, 0.0), 1.0)
        figures = {"clipped_share": clipped_share, "noise_in_step": deviation / weight}
        return replace(self.next_state(self._stepped(step)), figures=figures)

    def _stepped(self, step: StackedAdapter) -> StackedAdapter:
        """The global adapter, moved in the factors that devices send; in float32."""
        sent = sent_places(self.adaptation)
        after = step.with_values(np.empty(step.values.size, np.float32))
        for into, before, moved in zip(after, self.state.adapter, step, strict=True):
            into.lora_A[:] = before.lora_A + (moved.lora_A if LORA_A in sent else 0.0)
            into.lora_B[:] = before.lora_B + (moved.lora_B if LORA_B in sent else 0.0)
        return after
