"""Steps of server optimizers in small numbers, from the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import effective, merged

from aggregator_service.aggregation.optimizers import with_optimizer
from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.rules import (
    FfaRule,
    FlexLoraRule,
)
from hetlora.messages.server_optimizer import ServerAdaptive, ServerMomentum, ServerOptimizer

NUMBER = AdapterSpec((ModuleSpec("out", 1, 1),), scaling=1.0, max_rank=1)


def number(lora_B: float, lora_A: float = 1.0) -> Adapter:
    return Adapter(NUMBER, {"out": LoraFactors(np.array([[lora_A]]), np.array([[lora_B]]))})


def two_steps(optimizer: ServerOptimizer, changes: tuple[float, float]) -> list[float]:
    """lora_B of FFA-LoRA, 0 at first, after each of two rounds of one device that moves it by this much."""
    state, seen = first_state(FfaRule(), number(0.0)), []
    for change in changes:
        rule = with_optimizer(open_rule(FfaRule(), state), optimizer)
        sent = stacked(number((seen[-1] if seen else 0.0) + change))
        state = merged(rule, [Update(sent, 1, state.adapter)]).state
        seen.append(float(unstacked(state.adapter).factors["out"].lora_B[0, 0]))
    return seen


def adaptive(name: str) -> ServerAdaptive:
    constants = {"learning_rate": 2.0, "beta1": 0.5, "epsilon": 1.0}
    decay = {} if name == "adagrad" else {"beta2": 0.75}
    return ServerAdaptive.model_validate({"name": name, **constants, **decay})


def test_two_steps_of_momentum() -> None:
    # v = 2, x = 0.5 * 2 = 1; v = 0.5 * 2 + 3 = 4, x = 1 + 0.5 * 4 = 3.
    assert two_steps(ServerMomentum(learning_rate=0.5, momentum=0.5), (2.0, 3.0)) == [1.0, 3.0]


def test_two_steps_of_adagrad() -> None:
    # v = 1 + 4 = 5, m = 0.5 * 2 = 1, x = 2 * 1 / (sqrt 5 + 1);
    # v = 5 + 9 = 14, m = 0.5 + 0.5 * 3 = 2, x += 2 * 2 / (sqrt 14 + 1).
    first = 2 / (5**0.5 + 1)
    assert two_steps(adaptive("adagrad"), (2.0, 3.0)) == pytest.approx([first, first + 4 / (14**0.5 + 1)])


def test_two_steps_of_adam() -> None:
    # v = 0.75 * 1 + 0.25 * 4 = 1.75, m = 1; v = 0.75 * 1.75 + 0.25 * 9 = 3.5625, m = 2.
    first = 2 / (1.75**0.5 + 1)
    assert two_steps(adaptive("adam"), (2.0, 3.0)) == pytest.approx([first, first + 4 / (3.5625**0.5 + 1)])


def test_two_steps_of_yogi() -> None:
    # v = 1 - 0.25 * 4 * sign(1 - 4) = 2, m = 1; v = 2 - 0.25 * 1 * sign(2 - 1) = 1.75, m = 0.5 + 0.5 = 1.
    first = 2 / (2**0.5 + 1)
    assert two_steps(adaptive("yogi"), (2.0, 1.0)) == pytest.approx([first, first + 2 / (1.75**0.5 + 1)])


def test_two_steps_of_momentum_in_the_factors_of_a_product() -> None:
    # Balanced factors are roots: 1, then 2, a change of 1 in both, taken whole; then 3, a change of 1 again,
    # v = 0.5 * 1 + 1 = 1.5, factors 2 + 1.5 = 3.5, product 12.25.
    optimizer, rule = ServerMomentum(learning_rate=1.0, momentum=0.5), FlexLoraRule()
    state, seen = first_state(rule, number(1.0)), []
    for product in (4.0, 9.0):
        opened = with_optimizer(open_rule(rule, state), optimizer)
        sent = stacked(number(-product, -1.0))
        state = merged(opened, [Update(sent, 1, state.adapter)]).state
        seen.append(float(effective(state)["out"][0, 0]))
    assert seen == pytest.approx([4.0, 12.25])
