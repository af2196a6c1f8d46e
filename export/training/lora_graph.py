"""Splices LoRA beside the base model's linear layers: y = W x + scaling * B A x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import copy_of, replace_nodes, scope_of
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
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        module = by_output.get(node.output[0])
        if module is None:
            continue
        output, node.output[0] = node.output[0], f"{node.output[0]}/frozen"
        branch: list[NodeProto] = []
        _add_branch(GraphBuilder(model.graph, branch), module, node.input[0], output, spec.scaling)
        # Nodes are named by where they run, which need not be where the checkpoint has the weight.
        for added in branch:
            added.name = f"{scope_of(node.name)}{added.name.removeprefix(module.name)}"
        nodes += branch
    replace_nodes(model.graph, nodes)


def with_factor_inputs(
    model: ModelProto, spec: AdapterSpec, rank: int | Callable[[ModuleSpec], int | str] = rank_symbol
) -> ModelProto:
    """A copy of a spliced graph that takes the factors as inputs, as a rule each module at its own rank."""
    copy = copy_of(model)
    for key, shape in factor_shapes(spec.modules, rank).items():
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
    builder.node("Add", [f"{output}/frozen", delta], output, name=f"{module.name}{LORA_SUM}")
