from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_sdk.runtimes.adamw import AdamW
from hetlora.manifest import OptimizerInfo


def _constants(weight_decay: float = 0.1, epsilon: float = 1e-8) -> OptimizerInfo:
    return OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=epsilon, weight_decay=weight_decay)


def test_first_step_is_the_learning_rate_against_the_sign_after_decay() -> None:
    parameters = {"w": np.array([1.0, -2.0], np.float32)}
    AdamW(parameters, _constants()).step({"w": np.array([3.0, -0.5], np.float32)}, 0.01)
    # w * (1 - 0.01 * 0.1) - 0.01 * sign(gradient): 0.999 - 0.01 and -1.998 + 0.01
    assert parameters["w"] == pytest.approx([0.989, -1.988], abs=1e-6)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
def test_many_steps_are_those_of_torch(epsilon: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 4)).astype(np.float32)
    parameters, twin = {"w": start.copy()}, torch.from_numpy(start.copy()).requires_grad_()
    ours = AdamW(parameters, _constants(epsilon=epsilon))
    theirs = torch.optim.AdamW([twin], lr=1.0, betas=(0.9, 0.999), eps=epsilon, weight_decay=0.1)
    for step in range(30):
        gradient = rng.standard_normal((3, 4)).astype(np.float32)
        rate = 0.01 / (1 + step)
        theirs.param_groups[0]["lr"] = rate
        twin.grad = torch.from_numpy(gradient)
        theirs.step()
        ours.step({"w": gradient}, rate)
    assert np.abs(parameters["w"] - twin.detach().numpy()).max() <= 1e-6
