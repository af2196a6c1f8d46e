"""What the graphs and programs of a bundle take, as its manifest has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hetlora.fixed_sizes import fixed_sizes
from hetlora.graph_names import DECODER_INPUT_IDS, LABELS, PRUNING_DECAY, PRUNING_PENALTY
from hetlora.manifest import Manifest, has_decoder
from hetlora.tensors import factor_keys

RANK: Final = "rank"  # stands for any rank

Sizes = tuple[int | str, ...]
# Dtype and sizes of each input by its name, in the order of ExecuTorch's programs. A word is any size.
Signature = dict[str, tuple[str, Sizes]]

# What training graphs and programs are fed for their penalty: it is the trainer's.
NO_PENALTY: Final[Mapping[str, NDArray[Any]]] = {
    PRUNING_DECAY: np.array(1, np.float64),
    PRUNING_PENALTY: np.array(0, np.float32),
}


def inference_signature(manifest: Manifest) -> Signature:
    """Inputs of the inference graph; errors as `hetlora.fixed_sizes.fixed_sizes`."""
    own = {DECODER_INPUT_IDS: ("int64", target_sizes(manifest))} if has_decoder(manifest.task) else {}
    return {**_inputs(manifest), **own, **_factors(manifest)}


def eval_signature(manifest: Manifest) -> Signature:
    """Inputs of the eval graph; errors as `hetlora.fixed_sizes.fixed_sizes`."""
    return {**_inputs(manifest), LABELS: ("int64", label_sizes(manifest)), **_factors(manifest)}


def training_signature(manifest: Manifest) -> Signature:
    """Inputs of the training graph; errors as `hetlora.fixed_sizes.fixed_sizes`."""
    penalty: Signature = {PRUNING_DECAY: ("float64", ()), PRUNING_PENALTY: ("float32", ())}
    labels: Signature = {LABELS: ("int64", label_sizes(manifest))}
    return {**_inputs(manifest), **labels, **penalty, **_factors(manifest)}


def label_sizes(manifest: Manifest) -> Sizes:
    """(batch,) of a classifier, (batch, tokens) or (batch, target_tokens) where text is generated."""
    if has_decoder(manifest.task):
        return target_sizes(manifest)
    batch, *others = _batch_sizes(manifest)
    return (batch, *others) if manifest.generates else (batch,)


def target_sizes(manifest: Manifest) -> Sizes:
    """(batch, target_tokens): what a decoder of its own reads and learns, stamped together with the text."""
    batch, tokens, *_ = _batch_sizes(manifest)
    return batch, tokens if isinstance(tokens, int) else "target_tokens"


def _batch_sizes(manifest: Manifest) -> Sizes:
    fixed_sizes(manifest)
    return manifest.inputs[0].shape


def _inputs(manifest: Manifest) -> Signature:
    fixed_sizes(manifest)
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.inputs}


def _factors(manifest: Manifest) -> Signature:
    signature: Signature = {}
    for module in manifest.adapter.modules:
        lora_A, lora_B = factor_keys(module.name)
        signature[lora_A] = ("float32", (RANK, module.in_features))
        signature[lora_B] = ("float32", (module.out_features, RANK))
    return signature
