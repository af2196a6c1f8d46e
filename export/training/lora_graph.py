"""Splices LoRA beside the base model's linear layers: y = W x + scaling * B A x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from onnx import ModelProto

from export.graphs.graph_builder import GraphBuilder, scope_of
from export.graphs.graph_edit import copy_of
from export.graphs.linear_layers import linear_layers
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.tensors import factor_keys

RANK: Final = "rank"  # in shapes: that of any module, or RANK/module for a certain one
LORA_SUM: Final = "/lora_sum"  # how the names of the nodes end that join the branch to the frozen layer

FactorShapes = dict[str, tuple[int | str, int | str]]


def rank_symbol(module: ModuleSpec) -> str:
    """The symbol of a module's rank in the graphs; each has its own, for memory is planned by symbols."""
    return f"{RANK}/{module.name}"


def factor_shapes(
    modules: Sequence[ModuleSpec], rank: int | Callable[[ModuleSpec], int | str]
) -> FactorShapes:
    """The shape of every lora_A and lora_B under its PEFT key, at one rank or at one for each module."""
    shapes: FactorShapes = {}
    for module in modules:
        key_A, key_B = factor_keys(module.name)
        own = rank if isinstance(rank, int) else rank(module)
        shapes[key_A] = (own, module.in_features)
        shapes[key_B] = (module.out_features, own)
    return shapes


def splice_lora(model: ModelProto, spec: AdapterSpec) -> None:
    """Add each module's LoRA branch; the factors are left to be defined, as inputs or as initializers."""
    layers = linear_layers(model)
    by_output = {layers[module.name].output: module for module in spec.modules}
    nodes = [copy_of(node) for node in model.graph.node]
    del model.graph.node[:]
    builder = GraphBuilder(model.graph)
    for node in nodes:
        output = node.output[0]
        model.graph.node.append(node)
        if output in by_output:
            model.graph.node[-1].output[0] = f"{output}/frozen"
            start = len(model.graph.node)
            _add_branch(builder, by_output[output], node.input[0], output, spec.scaling)
            # Nodes are named by where they run, which need not be where the checkpoint has the weight.
            for added in model.graph.node[start:]:
                added.name = f"{scope_of(node)}{added.name.removeprefix(by_output[output].name)}"


def with_factor_inputs(model: ModelProto, spec: AdapterSpec) -> ModelProto:
    """A copy of a spliced graph that takes the factors as inputs, each module at a rank of its own."""
    copy = copy_of(model)
    for key, shape in factor_shapes(spec.modules, rank_symbol).items():
        GraphBuilder(copy.graph).input(key, shape)
    return copy


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
    builder.graph.node[-1].name = f"{module.name}{LORA_SUM}"
