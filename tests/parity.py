"""A bundle beside PyTorch and PEFT: the same batch, the same adapter, twenty AdamW steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from peft_twin import PeftTwin
from tiny_families import IMAGE, TINY_FAMILIES, VOCABULARY

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


def open_runtime(bundle: Bundle, adapter: Adapter) -> OnnxRuntime:
    """With the penalty pressing on the tail of each module."""
    return OnnxRuntime(bundle, adapter, pruning_decay=DECAY, pruning_penalty=PENALTY, threads=1)


def check_training(bundle: Bundle, adapter: Adapter, batch: Batch, twin: PeftTwin) -> None:
    """Hold the first loss, each gradient and the loss after STEPS against the twin."""
    runtime = open_runtime(bundle, adapter)
    optimizer = torch.optim.AdamW(twin.factors.values(), lr=LEARNING_RATE, weight_decay=0.0)
    first = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY)
    first.backward()
    loss = runtime.train_step(batch, learning_rate=LEARNING_RATE)
    assert abs(loss - first.item()) <= LOSS_TOLERANCE
    _check_gradients(runtime, twin)
    optimizer.step()
    for _ in range(1, STEPS):
        runtime.train_step(batch, learning_rate=LEARNING_RATE)
        optimizer.zero_grad()
        twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY).backward()
        optimizer.step()
    last = twin.loss(batch, pruning_decay=DECAY, pruning_penalty=PENALTY).item()
    assert abs(runtime.train_step(batch, learning_rate=LEARNING_RATE) - last) <= LAST_LOSS_TOLERANCE
    assert last < first.item()  # it learns


def _check_gradients(runtime: OnnxRuntime, twin: PeftTwin) -> None:
    gradients = runtime.gradients()
    assert gradients.keys() == twin.factors.keys()
    for key, gradient in gradients.items():
        wanted = twin.factors[key].grad
        assert wanted is not None
        largest = np.abs(wanted.numpy()).max()
        assert largest > 0, key
        assert np.abs(gradient - wanted.numpy()).max() <= GRADIENT_TOLERANCE * largest, key
