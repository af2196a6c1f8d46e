"""HetLoRA's regulariser in the training graph: what gamma and lambda do to the loss and to each gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_training import GraphTraining
from parity import batch_for, export_family, trained_adapter
from peft_twin import PeftTwin
from tiny_families import write_tiny_family

from hetlora.adapter import Tensor
from hetlora.bundle import Bundle
from hetlora.tensors import factor_keys

Case = tuple[Path, Bundle]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("penalty")
    model = write_tiny_family(root / "model", "bert")
    return model, export_family("bert", model, root / "bundle")


def _step(bundle: Bundle, decay: float, penalty: float) -> tuple[float, dict[str, Tensor]]:
    adapter = trained_adapter(bundle.manifest.adapter)
    graphs = GraphTraining(bundle, adapter, pruning_decay=decay, pruning_penalty=penalty)
    loss = graphs.step(batch_for(bundle))
    return loss, graphs.gradients()


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5, 0.7, 0.99])
def test_penalty_and_its_gradient_are_those_of_autograd(case: Case, decay: float, tmp_path: Path) -> None:
    model, bundle = case
    twin = PeftTwin(bundle, model, trained_adapter(bundle.manifest.adapter), tmp_path)
    expected = twin.loss(batch_for(bundle), pruning_decay=decay, pruning_penalty=0.3)
    expected.backward()
    loss, gradients = _step(bundle, decay, 0.3)
    assert abs(loss - expected.item()) <= 2e-5
    for key, gradient in gradients.items():
        wanted = twin.factors[key].grad
        assert wanted is not None
        assert torch.allclose(torch.from_numpy(gradient), wanted, rtol=1e-4, atol=1e-5), key


def test_ranks_before_the_tail_feel_no_penalty(case: Case) -> None:
    bundle = case[1]
    plain, pressed = _step(bundle, 0.5, 0.0)[1], _step(bundle, 0.5, 0.3)[1]
    for name, rank in trained_adapter(bundle.manifest.adapter).ranks.items():
        keep = rank // 2  # floor(0.5 r)
        key_A, key_B = factor_keys(name)
        assert (plain[key_A][:keep] == pressed[key_A][:keep]).all()
        assert (plain[key_B][:, :keep] == pressed[key_B][:, :keep]).all()
        assert (plain[key_A][keep:] != pressed[key_A][keep:]).any()


def test_gamma_one_presses_on_nothing(case: Case) -> None:
    # Only the root of epsilon remains: 1e-6 for each of two norms in each module, multiplied.
    assert abs(_step(case[1], 1.0, 0.3)[0] - _step(case[1], 1.0, 0.0)[0]) <= 1e-6


def test_untrained_factors_give_a_finite_gradient(case: Case) -> None:
    from hetlora.adapter import initial_adapter

    bundle = case[1]
    fresh = initial_adapter(bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is zero
    graphs = GraphTraining(bundle, fresh, pruning_decay=0.5, pruning_penalty=0.3)
    graphs.step(batch_for(bundle))
    assert all(np.isfinite(gradient).all() for gradient in graphs.gradients().values())
