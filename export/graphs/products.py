"""How graphs read their matrices: multiplied, transposed, or row by row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from onnx import GraphProto, NodeProto, helper

from export.graphs.graph_edit import reads_of, replace_nodes
from export.graphs.microsoft import MICROSOFT

PRODUCTS: Final = ("MatMul", "FusedMatMul", "Gemm")


def is_row_lookup(node: NodeProto) -> bool:
    """Whether a node reads some rows of a table, and no more of it."""
    return node.op_type == "Gather" and all(attribute.i == 0 for attribute in node.attribute)


def fold_transposes(graph: GraphProto, weights: Iterable[str]) -> None:
    """Let matrix products read a weight as it lies, where the graph reads it through a Transpose."""
    names = set(weights)
    transposed = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in names
    }
    for node in graph.node:
        if len(node.input) > 1 and node.input[1] in transposed and node.op_type in PRODUCTS:
            node.input[1] = transposed[node.input[1]]
            _flip_second_operand(node)
    read = set().union(*(reads_of(node) for node in graph.node)) if graph.node else set()
    read |= {value.name for value in graph.output}
    replace_nodes(graph, [n for n in graph.node if n.output[0] not in transposed or n.output[0] in read])


def _flip_second_operand(node: NodeProto) -> None:
    if node.op_type == "MatMul":
        node.op_type, node.domain = "FusedMatMul", MICROSOFT
    before = [attribute for attribute in node.attribute if attribute.name == "transB"]
    if before:
        before[0].i = 1 - before[0].i
    else:
        node.attribute.append(helper.make_attribute("transB", 1))
