"""Splices LoRA beside the base model's linear layers: y = W x + scaling * B A x."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from export.graph_builder import GraphBuilder
from export.targets import target_nodes
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.tensors import factor_keys

FactorShapes = dict[str, tuple[int | str, int | str]]


def factor_shapes(modules: Sequence[ModuleSpec], rank: int | str) -> FactorShapes:
    """The shape of every lora_A and lora_B under its PEFT key, at a fixed or a symbolic rank."""
    shapes: FactorShapes = {}
    for module in modules:
        key_A, key_B = factor_keys(module.name)
        shapes[key_A] = (rank, module.in_features)
        shapes[key_B] = (module.out_features, rank)
    return shapes


def splice_lora(model: ModelProto, spec: AdapterSpec) -> None:
    """Add each module's LoRA branch; the factors are left to be defined, as inputs or as initializers."""
    places = target_nodes(model)
    by_node = {places[module.name].name: module for module in spec.modules}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    builder = GraphBuilder(model.graph)
    for node in nodes:
        model.graph.node.append(node)
        if node.name in by_node:
            output = node.output[0]
            model.graph.node[-1].output[0] = f"{output}/frozen"
            _add_branch(builder, by_node[node.name], node.input[0], output, spec.scaling)


def _add_branch(builder: GraphBuilder, module: ModuleSpec, x: str, output: str, scaling: float) -> None:
    key_A, key_B = factor_keys(module.name)
    # Two dimensions, so that the gradient graph needs no constant that depends on the rank.
    width = builder.constant(f"rows_of_{module.in_features}", np.array([-1, module.in_features]))
    rows = builder.node("Reshape", [x, width], f"{module.name}/rows")  # (batch * tokens, in_features)
    down = builder.node("Gemm", [rows, key_A], f"{module.name}/lora_A", transB=1)  # (batch * tokens, rank)
    up = builder.node("Gemm", [down, key_B], f"{module.name}/lora_B", transB=1, alpha=scaling)
    shape = builder.node("Shape", [f"{output}/frozen"], f"{module.name}/shape")
    delta = builder.node("Reshape", [up, shape], f"{module.name}/delta")  # (batch, tokens, out_features)
    builder.node("Add", [f"{output}/frozen", delta], output)
