"""Which linear layers LoRA adapts: names, endings and patterns against the modules in the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

from onnx import ModelProto

from export.graphs.linear_layers import LinearNode, block_of, linear_layers
from hetlora.adapter import ModuleSpec
from hetlora.errors import ModelNotExportable

ALL_LINEAR: Final = "all-linear"


def choose_targets(
    model: ModelProto, targets: Sequence[str], *, last_layers: int | None = None
) -> tuple[ModuleSpec, ...]:
    """The linear layers of a cleaned graph that `targets` name, ordered by name.

    A target is
    - a module's PEFT name, or where it ends: `query` matches `encoder.layer.0.attention.self.query`;
    - a shell-style pattern of such: `mlp.*_proj`, `layers.[01].*`;
    - ALL_LINEAR: every linear layer within the transformer blocks but for those that share their weights.

    `last_layers` keeps what lies in the last so many blocks that it runs: the backward pass ends there.

    Raises:
        ModelNotExportable: no target, one that matches nothing (near matches are listed) or that lies outside
            the last layers, one whose weight is read at several places, such as tied embeddings, more
            `last_layers` than the model has, or a model without any layer to adapt.
    """
    if not targets:
        raise ModelNotExportable("no LoRA targets", expected="at least one module name ending, such as query")
    layers = linear_layers(model)
    if all(layer.shared for layer in layers.values()):
        raise ModelNotExportable(
            "the model has no linear layer that LoRA could adapt",
            expected="at least one whose weight nothing else reads",
        )
    blocks = _last_blocks(layers, last_layers)
    chosen: dict[str, ModuleSpec] = {}
    for target in targets:
        names = _matches(target, layers)
        if last_layers is not None:
            names = _within(blocks, target, names)
        _check_unshared(target, names, layers)
        for name in names:
            chosen[name] = ModuleSpec(name, layers[name].in_features, layers[name].out_features)
    return tuple(chosen[name] for name in sorted(chosen))


def _last_blocks(layers: Iterable[str], count: int | None) -> list[str]:
    blocks = list(dict.fromkeys(block for name in layers if (block := block_of(name)) is not None))
    if count is not None and not 1 <= count <= len(blocks):
        raise ModelNotExportable(
            "the model has not so many last layers", got=count, expected=f"1 to {len(blocks)}"
        )
    return blocks if count is None else blocks[-count:]


def _matches(target: str, layers: Mapping[str, LinearNode]) -> list[str]:
    own = [name for name, layer in layers.items() if not layer.shared]
    if target == ALL_LINEAR:
        matches = [name for name in own if block_of(name) is not None]
    else:
        # As an ending: the pattern may begin at any part of the path.
        matches = [name for name in layers if fnmatchcase(f".{name}", f"*.{target}")]
    if not matches:
        raise _unknown_target(target, own)
    return matches


def _within(blocks: Sequence[str], target: str, names: Iterable[str]) -> list[str]:
    within = [name for name in names if block_of(name) in blocks]
    if not within:
        raise ModelNotExportable(
            "a LoRA target lies outside the layers that train", got=repr(target), expected=f"one in {blocks}"
        )
    return within


def _check_unshared(target: str, names: Iterable[str], layers: Mapping[str, LinearNode]) -> None:
    # A branch beside one place would leave the others as they are.
    shared = next((name for name in names if layers[name].shared), None)
    if shared is not None:
        raise ModelNotExportable(
            "a LoRA target shares its weight with another place of the model",
            got=f"{target!r} matches {shared}, which reads {layers[shared].weight}",
            expected=f"layers with weights of their own, or {ALL_LINEAR!r}",
        )


def _unknown_target(target: str, linear: Sequence[str]) -> ModelNotExportable:
    within = [name for name in linear if block_of(name) is not None] or linear
    endings = sorted({ending for name in within for ending in _endings(name)})
    near = get_close_matches(target.lower(), [ALL_LINEAR, *endings], n=5, cutoff=0.5)
    return ModelNotExportable(
        "a LoRA target matches no linear layer that the model runs exactly once",
        got=repr(target),
        expected=f"near matches {near}" if near else f"one of {endings}",
    )


def _endings(name: str) -> list[str]:
    """Endings of a module name that hold no layer number: ...layer.0.output.dense -> dense, output.dense."""
    parts = name.split(".")
    endings = []
    for start in range(len(parts) - 1, -1, -1):
        if parts[start].isdigit():
            break
        endings.append(".".join(parts[start:]))
    return endings
