"""Updates for a model of Gemma-3-270M's shape: 18 layers, hidden 640, LoRA on q, k, v and o."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, Tensor
from hetlora.algebra import truncate
from hetlora.tensors import adapter_to_bytes

LAYERS: Final = 18
# Of each target, (in_features, out_features): heads of 256, four for queries and one for keys and values.
TARGETS: Final = {"q_proj": (640, 1024), "k_proj": (640, 256), "v_proj": (640, 256), "o_proj": (1024, 640)}
RANKS: Final = (4, 8, 16, 32)

# What the mean product's spectrum is like decides how soon its leading triplets are found.
# - random: every update by itself. No direction leads, and the spectrum is as flat as can be.
# - decaying: the same, but features count less and less, as those of trained models do, so that singular
#   values fall by a power law.
# - trained: all start at one global adapter and move by a tenth of it. Beyond its rank nothing is left.
Kind = Literal["random", "decaying", "trained"]
MOVE: Final = 0.1
FALL: Final = 0.75  # the j-th feature's size is j^-FALL


def gemma_spec(max_rank: int) -> AdapterSpec:
    """The 72 modules."""
    modules = [
        ModuleSpec(f"model.layers.{layer}.self_attn.{name}", *shape)
        for layer in range(LAYERS)
        for name, shape in TARGETS.items()
    ]
    return AdapterSpec(tuple(sorted(modules, key=lambda module: module.name)), scaling=2.0, max_rank=max_rank)


def random_update(spec: AdapterSpec, rank: int, rng: np.random.Generator, fall: float = 0) -> Adapter:
    """Normal factors: lora_A of the size that PEFT starts from, lora_B a fifth of it.

    Args:
        fall: of the sizes of features.
    """
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                _normal(rng, (rank, module.in_features), 0.02) * _sizes(module.in_features, fall),
                _normal(rng, (module.out_features, rank), 0.004) * _sizes(module.out_features, fall)[:, None],
            )
            for module in spec.modules
        },
    )


def trained_update(start: Adapter, rank: int, rng: np.random.Generator) -> Adapter:
    """What a device of this rank could make of a global adapter in one round."""
    sent = truncate(start, rank)
    return Adapter(
        start.spec,
        {
            module.name: LoraFactors(_moved(factors.lora_A, rng), _moved(factors.lora_B, rng))
            for module, factors in sent
        },
    )


def write_updates(folder: Path, ranks: Sequence[int], kind: Kind, *, max_rank: int, seed: int) -> list[Path]:
    """Store one update for each rank, as a service stores them: safetensors, float32."""
    folder.mkdir(parents=True)
    spec, rng = gemma_spec(max_rank), np.random.default_rng(seed)
    start = random_update(spec, max_rank, rng)
    paths = [folder / f"{number:03}.safetensors" for number in range(len(ranks))]
    for path, rank in zip(paths, ranks, strict=True):
        if kind == "trained":
            adapter = trained_update(start, rank, rng)
        else:
            adapter = random_update(spec, rank, rng, FALL if kind == "decaying" else 0)
        path.write_bytes(adapter_to_bytes(adapter))
    return paths


def _normal(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Tensor:
    noise: Tensor = rng.standard_normal(shape, np.float32)
    noise *= np.float32(size)
    return noise


def _sizes(features: int, fall: float) -> Tensor:
    """Of features; their mean square is 1."""
    sizes = np.arange(1, features + 1) ** -fall
    return np.asarray(sizes / np.sqrt(np.mean(sizes**2)), np.float32)


def _moved(factor: Tensor, rng: np.random.Generator) -> Tensor:
    return factor + _normal(rng, factor.shape, MOVE * float(factor.std()))
