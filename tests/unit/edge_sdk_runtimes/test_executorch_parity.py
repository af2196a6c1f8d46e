"""ExecuTorch against PyTorch and PEFT on the same batch: one program for several ranks and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch_models import FAMILIES, OPTIMIZER, PeftTwin, batch_of, trained_adapter

from edge_sdk.runtimes.adamw import AdamW
from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.executorch import ExecutorchModel, mean_loss
from edge_sdk.runtimes.executorch_library import Program
from hetlora.adapter import Adapter, Tensor
from hetlora.bundle import Bundle
from hetlora.tensors import to_tensors

pytestmark = pytest.mark.slow  # lowering a model takes half a minute

# All in float32, with sums in another order; several times what was seen.
LOGITS_TOLERANCE = 2e-5  # logits reach 17
LOSS_TOLERANCE = 5e-6
GRADIENT_TOLERANCE = 3e-5  # relative to the largest entry of the same tensor
STEPS = 20
LEARNING_RATE = 1e-2
LAST_LOSS_TOLERANCE = 1e-4

DECAY = 0.5
PENALTY = 0.1
RANKS = ((1,), (3,), (8, 2, 5))  # the same rank for all modules; unequal ranks
SIZES = ((4, 9), (1, 2), (5, 12))  # rows and tokens; the last is the largest that the programs take


class Trainer:
    """The training program and AdamW over its gradients, without the checks of a manifest."""

    def __init__(self, bundle: Bundle, adapter: Adapter) -> None:
        files = bundle.manifest.executorch
        assert files is not None
        self._inputs = [tensor.name for tensor in bundle.manifest.inputs]
        self._program = Program(bundle.path(files.training), bundle.path(files.base_weights), threads=1)
        self.factors = {key: tensor.copy() for key, tensor in to_tensors(adapter).items()}
        self._optimizer = AdamW(self.factors, OPTIMIZER)

    def step(self, batch: Batch) -> tuple[float, dict[str, Tensor]]:
        inputs: list[Any] = [batch[name] for name in (*self._inputs, "labels")]
        scalars: list[Any] = [np.float64(DECAY), np.float32(PENALTY)]
        loss, *gradients = self._program.run([*inputs, *map(np.array, scalars), *self.factors.values()])
        named = dict(zip(self.factors, gradients, strict=True))
        self._optimizer.step(named, LEARNING_RATE)
        return float(loss), named


Case = tuple[str, Bundle]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, executorch_bundle: Callable[[str], Bundle]) -> Case:
    return request.param, executorch_bundle(request.param)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(("rows", "tokens"), SIZES)
def test_first_step_has_the_loss_and_gradients_of_torch(
    case: Case, ranks: tuple[int, ...], rows: int, tokens: int, tmp_path: Path
) -> None:
    name, bundle = case
    adapter = trained_adapter(bundle.manifest.adapter, *ranks)
    batch = batch_of(FAMILIES[name](), rows, tokens)
    loss, gradients = Trainer(bundle, adapter).step(batch)
    twin = PeftTwin(name, adapter, tmp_path)
    expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY)
    expected.backward()
    assert abs(loss - expected.item()) <= LOSS_TOLERANCE
    assert gradients.keys() == twin.factors.keys()
    for key, gradient in gradients.items():
        wanted = twin.factors[key].grad
        assert wanted is not None
        scale = float(wanted.abs().max())
        assert scale > 0, key
        assert np.abs(gradient - wanted.numpy()).max() <= GRADIENT_TOLERANCE * scale, key


def test_twenty_steps_of_adamw_end_where_torch_does(case: Case, tmp_path: Path) -> None:
    name, bundle = case
    adapter = trained_adapter(bundle.manifest.adapter, 4, 8)
    batch = batch_of(FAMILIES[name]())
    trainer, twin = Trainer(bundle, adapter), PeftTwin(name, adapter, tmp_path)
    optimizer = torch.optim.AdamW(
        twin.factors.values(),
        lr=LEARNING_RATE,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
        weight_decay=OPTIMIZER.weight_decay,
    )
    losses = []
    for _ in range(STEPS + 1):
        losses.append(trainer.step(batch)[0])
        expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert abs(losses[-1] - expected.item()) <= LAST_LOSS_TOLERANCE


@pytest.mark.parametrize("ranks", [(1,), (8, 0, 3)])
def test_inference_program_has_the_logits_of_torch(
    case: Case, ranks: tuple[int, ...], tmp_path: Path
) -> None:
    name, bundle = case
    adapter = trained_adapter(bundle.manifest.adapter, *ranks)
    batch = batch_of(FAMILIES[name]())
    logits = ExecutorchModel(bundle, threads=1).logits(batch, adapter=adapter)
    twin = PeftTwin(name, adapter, tmp_path)
    with torch.no_grad():
        assert np.abs(logits - twin.logits(batch).numpy()).max() <= LOGITS_TOLERANCE
        loss = twin.loss(batch, pruning_decay=1.0, pruning_penalty=0.0).item()
    assert abs(mean_loss(logits, batch["labels"]) - loss) <= LOSS_TOLERANCE
