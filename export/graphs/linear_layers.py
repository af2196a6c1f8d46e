"""The linear layers of a cleaned graph, whatever they were traced from: nn.Linear, Conv1D, fused or alone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from onnx import ModelProto, NodeProto, TensorProto

from export.graphs.graph_edit import scope_of

# The block that a module path leads through: model.layers.3.mlp -> model.layers.3. T5's blocks hold layers.
_BLOCK: Final = re.compile(r"^(?:.*?\.)?(?:layers?|h|blocks?)\.\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class LinearNode:
    """One product of activations (..., in_features) with a frozen matrix, before any bias is added.

    The matrix is the graph input `weight`. It is `transposed` if it is (out_features, in_features) and the
    graph reads it through a Transpose, as nn.Linear does; Conv1D has it the other way round. It is `shared`
    if the graph reads it at another place too.
    """

    node: NodeProto
    input: str
    output: str
    weight: str
    in_features: int
    out_features: int
    transposed: bool
    shared: bool


def linear_layers(model: ModelProto) -> dict[str, LinearNode]:
    """The products with a frozen matrix by module name, in the order of the graph, which `clean` made.

    A layer is named by its matrix. Where several products share one, the others are named by their place:
    `lm_head` where it is tied to the embeddings, `query_1` where `query` runs a second time.
    """
    graph = model.graph
    matrices = {
        value.name: dims
        for value in graph.input
        if (dims := _matrix_dims(value.type.tensor_type)) is not None
    }
    seen = {name: (name, False) for name in matrices}
    seen |= {
        node.output[0]: (node.input[0], True)
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in matrices
    }
    reads = Counter(seen[name][0] for node in graph.node for name in node.input if name in seen)
    transposes = Counter(matrix for matrix, transposed in seen.values() if transposed)
    layers = {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in seen:
            continue
        weight, transposed = seen[node.input[1]]
        rows, columns = matrices[weight]
        layers[_name(weight, scope_of(node.name))] = LinearNode(
            node,
            node.input[0],
            node.output[0],
            weight,
            columns if transposed else rows,
            rows if transposed else columns,
            transposed,
            shared=reads[weight] - transposes[weight] > 1,
        )
    return layers


def block_of(path: str) -> str | None:
    """The transformer block that a module path lies in, or None: model.layers.3.mlp -> model.layers.3."""
    match = _BLOCK.match(path)
    return None if match is None else match.group()


def _matrix_dims(tensor: TensorProto) -> tuple[int, int] | None:
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if tensor.elem_type != TensorProto.FLOAT or len(sizes) != 2 or 0 in sizes:
        return None
    return sizes[0], sizes[1]


def _name(weight: str, scope: str) -> str:
    # A scope may lack the front of the path: OPT calls its decoder past the module that holds it.
    module = weight.rpartition(".")[0]
    return module if f".{module}".endswith(f".{scope}") else scope
