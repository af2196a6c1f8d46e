"""Which linear layers LoRA adapts: name endings against the modules that stand in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from onnx import ModelProto, NodeProto
from torch import nn

from export.graph_builder import scope_of
from hetlora.adapter import ModuleSpec
from hetlora.errors import ModelNotExportable


def find_targets(encoder: nn.Module, model: ModelProto, targets: Sequence[str]) -> tuple[ModuleSpec, ...]:
    """The modules that `targets` name, ordered by name.

    A target matches a module whose PEFT name equals it or ends with "." and it: `query` matches
    `encoder.layer.0.attention.self.query`.

    Raises:
        ModelNotExportable: no target at all, or one that matches nothing; near matches are listed.
    """
    if not targets:
        raise ModelNotExportable("no LoRA targets", expected="at least one module name ending, such as query")
    in_graph = target_nodes(model)
    linear = {
        name: ModuleSpec(name, module.in_features, module.out_features)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and name in in_graph
    }
    chosen: dict[str, ModuleSpec] = {}
    for target in targets:
        matches = {name: spec for name, spec in linear.items() if f".{name}".endswith(f".{target}")}
        if not matches:
            raise _unknown_target(target, linear)
        chosen |= matches
    return tuple(chosen[name] for name in sorted(chosen))


def target_nodes(model: ModelProto) -> dict[str, NodeProto]:
    """The MatMul node of each module that the graph runs exactly once, by module name."""
    nodes: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            nodes.setdefault(scope_of(node), []).append(node)
    return {scope: found[0] for scope, found in nodes.items() if len(found) == 1}


def _unknown_target(target: str, linear: Mapping[str, ModuleSpec]) -> ModelNotExportable:
    endings = sorted({ending for name in linear for ending in _endings(name)})
    near = get_close_matches(target, endings, n=5, cutoff=0.5)
    return ModelNotExportable(
        "a LoRA target matches no linear layer of the model",
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
