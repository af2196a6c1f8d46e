"""Every family that is listed as tested, against PyTorch and PEFT: loss, each gradient, and twenty steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from peft_twin import PeftTwin
from tiny_families import IMAGE, TINY_FAMILIES, VOCABULARY, write_tiny_family

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.bundle import Bundle
from hetlora.graph_names import IGNORED_LABEL, LABELS, PIXEL_VALUES

# All in float32, with sums in another order; several times what was seen.
LOSS_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4  # relative to the largest entry of the same tensor
STEPS = 20
LEARNING_RATE = 1e-3
LAST_LOSS_TOLERANCE = 2e-4

DECAY = 0.5
PENALTY = 0.05
RANKS = (4, 1, 3)  # go round over the modules
MAX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    folder: Path
    bundle: Bundle


@pytest.fixture(scope="module", params=TINY_FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = TINY_FAMILIES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    folder = write_tiny_family(root / "model", request.param)
    labels = ["weather", "food", "sport"] if family.task == "text-classification" else []
    return Case(
        request.param,
        folder,
        export_bundle(
            str(folder),
            root / "bundle",
            task=family.task,
            labels=labels,
            targets=family.targets,
            max_rank=4,
            max_tokens=MAX_TOKENS,
        ),
    )


def batch_for(bundle: Bundle, *, rows: int = 3, tokens: int = 11) -> Batch:
    """Rows of unlike length, padded on the right; padding, and the first two tokens, have ignored labels."""
    rng = np.random.default_rng(1)
    if bundle.manifest.task == "image-classification":
        pixels = rng.standard_normal((rows, *IMAGE)).astype(np.float32)
        return {PIXEL_VALUES: pixels, LABELS: rng.integers(0, 3, rows)}
    place = np.arange(tokens)
    attention_mask = (place < tokens - 2 * np.arange(rows)[:, None]).astype(np.int64)
    input_ids = rng.integers(5, len(VOCABULARY), (rows, tokens)) * attention_mask
    arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": 0 * input_ids}
    batch = {tensor.name: arrays[tensor.name] for tensor in bundle.manifest.inputs}
    if bundle.manifest.task == "text-classification":
        return {**batch, LABELS: rng.integers(0, 3, rows)}
    if bundle.manifest.task == "text2text-generation":
        targets = rng.integers(5, len(VOCABULARY), (rows, 6))
        targets[1, 4:] = IGNORED_LABEL
        return {**batch, LABELS: targets}
    counts = (attention_mask == 1) & (place >= 2)
    return {**batch, LABELS: np.where(counts, input_ids, IGNORED_LABEL)}


def trained_adapter(spec: AdapterSpec) -> Adapter:
    """Both factors away from zero, as after some training, and unequal ranks."""
    rng = np.random.default_rng(2)
    factors = {}
    for place, module in enumerate(spec.modules):
        fresh = initial_adapter(spec, RANKS[place % len(RANKS)], rng).factors[module.name]
        factors[module.name] = LoraFactors(fresh.lora_A, 0.1 * rng.standard_normal(fresh.lora_B.shape))
    return Adapter(spec, factors)


def test_family_trains_as_torch_and_peft_do(case: Case, tmp_path: Path) -> None:
    batch, adapter = batch_for(case.bundle), trained_adapter(case.bundle.manifest.adapter)
    runtime = OnnxRuntime(case.bundle, adapter, pruning_decay=DECAY, pruning_penalty=PENALTY, threads=1)
    twin = PeftTwin(case.bundle, case.folder, adapter, tmp_path)
    optimizer = torch.optim.AdamW(twin.factors.values(), lr=LEARNING_RATE, weight_decay=0.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY)
        expected.backward()
        loss = runtime.train_step(batch, learning_rate=LEARNING_RATE)
        if step == 0:
            assert abs(loss - expected.item()) <= LOSS_TOLERANCE
            gradients = runtime.gradients()
            assert gradients.keys() == twin.factors.keys()
            for key, gradient in gradients.items():
                wanted = twin.factors[key].grad
                assert wanted is not None
                error = np.abs(gradient - wanted.numpy()).max()
                assert error <= GRADIENT_TOLERANCE * np.abs(wanted.numpy()).max(), key
        optimizer.step()
    after = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY).item()
    assert abs(runtime.train_step(batch, learning_rate=LEARNING_RATE) - after) <= LAST_LOSS_TOLERANCE
    assert after < loss + LAST_LOSS_TOLERANCE  # it learns
