"""A bundle beside PyTorch and PEFT: the same batch, the same adapter, twenty AdamW steps."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from graph_training import GraphTraining
from peft_twin import PeftTwin
from tiny_families import IMAGE, TINY_FAMILIES, VOCABULARY
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch, RuntimeFactory
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.trainer import Trainer
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, Tensor, initial_adapter
from hetlora.bundle import Bundle
from hetlora.graph_names import IGNORED_LABEL, LABELS, PIXEL_VALUES
from hetlora.tensors import to_tensors

# All in float32, with sums in another order; several times what was seen.
LOSS_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4  # relative to the largest entry of the same tensor
STEPS = 20
LEARNING_RATE = 1e-3
LAST_LOSS_TOLERANCE = 2e-4
# AdamW divides a gradient by its own size, so that noise in a tiny entry counts like a large one.
FACTOR_TOLERANCE = 0.02 * LEARNING_RATE

DECAY = 0.5
PENALTY = 0.05
RANKS = (4, 1, 3)  # go round over the modules
MAX_TOKENS = 16


def export_family(name: str, model: Path, out: Path, **choices: object) -> Bundle:
    """A tiny family's bundle; classifiers of text get three labels."""
    family = TINY_FAMILIES[name]
    usual: dict[str, object] = {
        "task": family.task,
        "labels": ["weather", "food", "sport"] if family.task == "text-classification" else [],
        "targets": family.targets,
        "max_rank": 4,
        "max_tokens": MAX_TOKENS,
    }
    return export_bundle(str(model), out, **(usual | choices))  # type: ignore[arg-type]


def batch_for(bundle: Bundle, *, rows: int = 3, tokens: int = 11) -> Batch:
    """Rows of unlike length, padded on the right; padding, and the first two tokens, have ignored labels."""
    rng = np.random.default_rng(1)
    if bundle.manifest.task == "image-classification":
        pixels = rng.standard_normal((rows, *IMAGE)).astype(np.float32)
        return {PIXEL_VALUES: pixels, LABELS: rng.integers(0, 3, rows)}
    place = np.arange(tokens)
    attention_mask = (place < tokens - 2 * (np.arange(rows) % 4)[:, None]).astype(np.int64)
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


def trained_adapter(spec: AdapterSpec, ranks: tuple[int, ...] = RANKS) -> Adapter:
    """Both factors away from zero, as after some training; the ranks go round over the modules."""
    rng = np.random.default_rng(2)
    factors = {}
    for place, module in enumerate(spec.modules):
        fresh = initial_adapter(spec, ranks[place % len(ranks)], rng).factors[module.name]
        factors[module.name] = LoraFactors(fresh.lora_A, 0.1 * rng.standard_normal(fresh.lora_B.shape))
    return Adapter(spec, factors)


class Opened(Protocol):
    """An adapter being trained at LEARNING_RATE, with the penalty pressing on the tail of each module."""

    def step(self, batch: Batch) -> float: ...
    def adapter(self) -> Adapter: ...
    def gradients(self) -> dict[str, Tensor]: ...


def open_trainer(bundle: Bundle, adapter: Adapter, runtime: RuntimeFactory = OnnxRuntime) -> Trainer:
    """A trainer over a runtime."""
    return trainer_of(
        bundle,
        adapter,
        runtime=runtime,
        pruning_decay=DECAY,
        pruning_penalty=PENALTY,
        learning_rate=LEARNING_RATE,
    )


def open_graphs(bundle: Bundle, adapter: Adapter) -> GraphTraining:
    """The bundle's own graphs, with the optimizer and the penalty that are in them."""
    return GraphTraining(
        bundle, adapter, pruning_decay=DECAY, pruning_penalty=PENALTY, learning_rate=LEARNING_RATE
    )


def check_training(opened: Opened, batch: Batch, twin: PeftTwin) -> None:
    """Hold the first loss, each gradient, and factors and loss after STEPS against the twin."""
    optimizer = torch.optim.AdamW(twin.factors.values(), lr=LEARNING_RATE, weight_decay=0.0)
    first = check_first_step(opened, batch, twin)
    optimizer.step()
    for _ in range(1, STEPS):
        opened.step(batch)
        optimizer.zero_grad()
        twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY).backward()
        optimizer.step()
    for key, tensor in to_tensors(opened.adapter()).items():
        assert np.abs(tensor - twin.factors[key].detach().numpy()).max() <= FACTOR_TOLERANCE, key
    last = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY).item()
    assert abs(opened.step(batch) - last) <= LAST_LOSS_TOLERANCE
    assert last < first  # it learns


def check_first_step(opened: Opened, batch: Batch, twin: PeftTwin) -> float:
    """Hold the loss of a step and each gradient against the twin, which is left with gradients of its own."""
    expected = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY)
    expected.backward()
    assert abs(opened.step(batch) - expected.item()) <= LOSS_TOLERANCE
    gradients = opened.gradients()
    assert gradients.keys() == twin.factors.keys()
    for key, gradient in gradients.items():
        wanted = twin.factors[key].grad
        assert wanted is not None
        largest = np.abs(wanted.numpy()).max()
        assert largest > 0, key
        assert np.abs(gradient - wanted.numpy()).max() <= GRADIENT_TOLERANCE * largest, key
    return expected.item()
