"""ONNX Runtime against PyTorch and PEFT on the same batch: one bundle, several ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_twin import TorchTwin

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from hetlora.adapter import Adapter, initial_adapter
from hetlora.bundle import Bundle

# All in float32, with sums in another order; several times what was seen.
LOGITS_TOLERANCE = 5e-5  # logits reach 17
LOSS_TOLERANCE = 5e-6
GRADIENT_TOLERANCE = 3e-5  # relative to the largest entry of the same tensor
STEPS = 5
LEARNING_RATE = 1e-2
# AdamW divides a gradient by its own size, so that noise in a tiny entry counts like a large one.
FACTOR_TOLERANCE = 0.02 * LEARNING_RATE

RANKS = (3, 8)
DECAY = 0.5  # ranks 3 and 8 keep 1 and 4

MakeAdapter = Callable[[int], Adapter]


@pytest.fixture
def twins(
    tiny_bundle: Bundle, tiny_model_folder: Path, tmp_path: Path
) -> Callable[..., tuple[OnnxRuntime, TorchTwin]]:
    def make(adapter: Adapter, penalty: float = 0.0, decay: float = DECAY) -> tuple[OnnxRuntime, TorchTwin]:
        runtime = OnnxRuntime(tiny_bundle, adapter, pruning_decay=decay, pruning_penalty=penalty, threads=1)
        return runtime, TorchTwin(tiny_bundle, adapter, tiny_model_folder, tmp_path / "peft")

    return make


def _assert_gradients_agree(runtime: OnnxRuntime, twin: TorchTwin) -> None:
    gradients = runtime.gradients()
    assert gradients.keys() == twin.factors.keys()
    for key, gradient in gradients.items():
        expected = twin.factors[key].grad
        assert expected is not None
        scale = float(expected.abs().max())
        assert scale > 0, key
        assert np.abs(gradient - expected.numpy()).max() <= GRADIENT_TOLERANCE * scale, key


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_first_step_has_the_loss_and_gradients_of_torch(
    rank: int, penalty: float, trained_adapter: MakeAdapter, twins: Callable[..., tuple], batch: Batch
) -> None:
    runtime, twin = twins(trained_adapter(rank), penalty)
    loss = runtime.train_step(batch, learning_rate=LEARNING_RATE)
    expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=penalty)
    expected.backward()
    assert abs(loss - expected.item()) <= LOSS_TOLERANCE
    _assert_gradients_agree(runtime, twin)


@pytest.mark.parametrize("rank", RANKS)
def test_adamw_takes_the_steps_of_torch(
    rank: int, trained_adapter: MakeAdapter, twins: Callable[..., tuple], batch: Batch
) -> None:
    runtime, twin = twins(trained_adapter(rank), 0.1)
    optimizer = torch.optim.AdamW(twin.factors.values(), lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(STEPS):
        loss = runtime.train_step(batch, learning_rate=LEARNING_RATE)
        expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=0.1)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert abs(loss - expected.item()) <= LOSS_TOLERANCE
    for module, factors in runtime.adapter():
        for name, tensor in (("lora_A", factors.lora_A), ("lora_B", factors.lora_B)):
            key = f"base_model.model.{module.name}.{name}.weight"
            assert np.abs(tensor - twin.factors[key].detach().numpy()).max() <= FACTOR_TOLERANCE, key


def test_penalty_of_a_new_adapter_has_finite_gradients_that_change_nothing(
    tiny_bundle: Bundle, twins: Callable[..., tuple], batch: Batch
) -> None:
    new = initial_adapter(tiny_bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is all zero
    punished, twin = twins(new, penalty=1.0)
    plain, _ = twins(new, penalty=0.0)
    loss = punished.train_step(batch, learning_rate=LEARNING_RATE)
    assert abs(loss - plain.train_step(batch, learning_rate=LEARNING_RATE)) <= LOSS_TOLERANCE
    twin.loss(batch, pruning_decay=DECAY, pruning_penalty=0.0).backward()
    for key, gradient in punished.gradients().items():
        assert np.isfinite(gradient).all()
        expected = twin.factors[key].grad
        assert expected is not None
        # At zero lora_B the penalty's slope for lora_A is the root of epsilon, 1e-6, times a unit vector.
        assert np.abs(gradient - expected.numpy()).max() <= 2e-6 + GRADIENT_TOLERANCE * float(
            expected.abs().max()
        )


def test_penalty_acts_on_the_tail_alone(
    trained_adapter: MakeAdapter, tiny_bundle: Bundle, batch: Batch
) -> None:
    def gradients(penalty: float) -> dict[str, np.ndarray]:
        adapter = trained_adapter(4)
        runtime = OnnxRuntime(tiny_bundle, adapter, pruning_decay=0.5, pruning_penalty=penalty)
        runtime.train_step(batch, learning_rate=LEARNING_RATE)
        return runtime.gradients()

    without, with_penalty = gradients(0.0), gradients(1.0)
    for key, gradient in with_penalty.items():
        difference = np.abs(gradient - without[key])
        leading, tail = (
            (difference[:2], difference[2:]) if "lora_A" in key else (difference[:, :2], difference[:, 2:])
        )
        assert leading.max() <= 1e-6
        assert tail.max() >= 1e-2


def test_no_tail_means_no_penalty(
    trained_adapter: MakeAdapter, twins: Callable[..., tuple], batch: Batch
) -> None:
    runtime, _ = twins(trained_adapter(4), penalty=10.0, decay=1.0)
    plain = runtime.evaluate(batch).loss
    assert abs(runtime.train_step(batch, learning_rate=LEARNING_RATE) - plain) <= LOSS_TOLERANCE


@pytest.mark.parametrize("rank", [1, *RANKS])
def test_all_graphs_and_the_peft_folder_give_the_logits_of_torch(
    rank: int, trained_adapter: MakeAdapter, twins: Callable[..., tuple], tiny_bundle: Bundle, batch: Batch
) -> None:
    adapter = trained_adapter(rank)
    runtime, twin = twins(adapter)
    with torch.no_grad():
        expected = twin.logits(batch).numpy()
    assert np.abs(OnnxModel(tiny_bundle, adapter).logits(batch) - expected).max() <= LOGITS_TOLERANCE
    assert np.abs(runtime.evaluate(batch).logits - expected).max() <= LOGITS_TOLERANCE
