"""The optimizers beside PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_sdk.training.flat_tensors import BLOCK
from edge_sdk.training.optimizers import AdamW, Optimizer, Sgd
from hetlora.adapter import Tensor
from hetlora.manifest import OptimizerInfo


def _constants(weight_decay: float = 0.1, epsilon: float = 1e-8) -> OptimizerInfo:
    return OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=epsilon, weight_decay=weight_decay)


def _after(ours: Optimizer, theirs: torch.optim.Optimizer, steps: int = 30) -> tuple[Tensor, Tensor]:
    """Both after the same steps, at a rate that falls; the second group's is twice that of the first."""
    rng = np.random.default_rng(0)
    [slow], [fast] = (group["params"] for group in theirs.param_groups)
    numbers = np.concatenate([slow.detach().numpy(), fast.detach().numpy()])
    size, split = len(numbers), len(slow)
    for step in range(1, steps + 1):
        gradients, rate = rng.standard_normal(size).astype(np.float32), 0.01 / step
        for group, own, times in zip(
            theirs.param_groups, (gradients[:split], gradients[split:]), (1, 2), strict=True
        ):
            group["lr"], group["params"][0].grad = times * rate, torch.from_numpy(own.copy())
        theirs.step()
        ours.step(numbers, gradients, [(slice(0, split), rate), (slice(split, size), 2 * rate)], number=step)
    return numbers, np.concatenate([slow.detach().numpy(), fast.detach().numpy()])


def _groups(split: int, size: int) -> list[dict[str, object]]:
    start = torch.from_numpy(np.random.default_rng(1).standard_normal(size).astype(np.float32))
    return [{"params": [part.clone().requires_grad_()]} for part in (start[:split], start[split:])]


def test_first_adamw_step_is_the_learning_rate_against_the_sign_after_decay() -> None:
    numbers = np.array([1.0, -2.0], np.float32)
    optimizer = AdamW({"w": (2,)}, _constants())
    optimizer.step(numbers, np.array([3.0, -0.5], np.float32), [(slice(0, 2), 0.01)], number=1)
    # w * (1 - 0.01 * 0.1) - 0.01 * sign(gradient): 0.999 - 0.01 and -1.998 + 0.01
    assert numbers == pytest.approx([0.989, -1.988], abs=1e-6)


def test_momentum_adds_what_is_left_of_the_steps_before() -> None:
    numbers = np.zeros(1, np.float32)
    optimizer = Sgd({"w": (1,)}, momentum=0.5, weight_decay=0.0)
    for number in (1, 2, 3):
        optimizer.step(numbers, np.ones(1, np.float32), [(slice(0, 1), 1.0)], number=number)
    assert numbers.tolist() == [-1 - 1.5 - 1.75]


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
@pytest.mark.parametrize(("split", "size"), [(5, 12), (BLOCK + 3, 2 * BLOCK + 1)])
def test_adamw_steps_are_those_of_torch(epsilon: float, split: int, size: int) -> None:
    theirs = torch.optim.AdamW(_groups(split, size), betas=(0.9, 0.999), eps=epsilon, weight_decay=0.1)
    got, expected = _after(AdamW({"w": (size,)}, _constants(epsilon=epsilon)), theirs)
    assert np.abs(got - expected).max() <= 1e-6


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.0, 0.1), (0.9, 0.0)])
def test_gradient_descent_is_that_of_torch(momentum: float, decay: float) -> None:
    size = BLOCK + 7
    theirs = torch.optim.SGD(_groups(5, size), lr=1.0, momentum=momentum, weight_decay=decay)
    ours = Sgd({"w": (size,)}, momentum=momentum, weight_decay=decay)
    got, expected = _after(ours, theirs)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
