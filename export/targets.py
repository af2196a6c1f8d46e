"""Which linear layers LoRA adapts: name endings against the modules that stand in the graph."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from onnx import ModelProto, NodeProto
from torch import nn

from export.graph_builder import scope_of
from hetlora.adapter import ModuleSpec
from hetlora.errors import ModelNotExportable

_CALL_NUMBER: Final = re.compile(r"_\d+(?=\.|$)")


def find_targets(encoder: nn.Module, model: ModelProto, targets: Sequence[str]) -> tuple[ModuleSpec, ...]:
    """The modules that `targets` name, ordered by name.

    A target matches a module whose PEFT name equals it or ends with "." and it: `query` matches
    `encoder.layer.0.attention.self.query`.

    Raises:
        ModelNotExportable: no target at all, or one that matches nothing; near matches are listed.
    """
    if not targets:
        raise ModelNotExportable("no LoRA targets", expected="at least one module name ending, such as query")
    layers = {name: layer for name, layer in encoder.named_modules() if isinstance(layer, nn.Linear)}
    linear = {
        name: ModuleSpec(name, layers[name].in_features, layers[name].out_features)
        for name in _run_once(layers.keys(), model)
    }
    chosen: dict[str, ModuleSpec] = {}
    for target in targets:
        matches = {name: spec for name, spec in linear.items() if f".{name}".endswith(f".{target}")}
        if not matches:
            raise _unknown_target(target, linear)
        chosen |= matches
    return tuple(chosen[name] for name in sorted(chosen))


def target_nodes(model: ModelProto) -> dict[str, NodeProto]:
    """The MatMul nodes by the module path that the exporter left in their names."""
    return {scope_of(node): node for node in model.graph.node if node.op_type == "MatMul"}


def _run_once(layers: Collection[str], model: ModelProto) -> list[str]:
    """Layers that stand in the graph once; one that several places share would need a branch for each."""
    scopes = target_nodes(model).keys()
    # The exporter numbers repeated calls at the end of any part of the path: attention_1/query, query_1.
    repeats = {_CALL_NUMBER.sub("", scope) for scope in scopes - layers}
    return [name for name in layers if name in scopes and _CALL_NUMBER.sub("", name) not in repeats]


def _unknown_target(target: str, linear: Mapping[str, ModuleSpec]) -> ModelNotExportable:
    endings = sorted({ending for name in linear for ending in _endings(name)})
    near = get_close_matches(target, endings, n=5, cutoff=0.5)
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
