"""Small edits on ONNX graphs that every pass needs: replace the nodes, bypass one, drop what nobody reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

Proto = TypeVar("Proto", ModelProto, NodeProto, TensorProto, ValueInfoProto)


def copy_of(proto: Proto) -> Proto:
    """A deep copy that no longer belongs to its graph."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    return copy


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make `nodes` the graph's nodes; some of them may be its present ones."""
    kept = [copy_of(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def rename_reads(nodes: Iterable[NodeProto], names: dict[str, str]) -> None:
    """Let every node read `names[x]` where it read x, in subgraphs too."""
    for node in nodes:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = names[name]
        for graph in subgraphs(node):
            rename_reads(graph.node, names)


def reads_of(node: NodeProto) -> set[str]:
    """Every tensor that a node reads, from within its subgraphs too."""
    reads = set(node.input)
    for graph in subgraphs(node):
        for inner in graph.node:
            reads |= reads_of(inner)
        reads |= {value.name for value in graph.output}
    return reads - {""}


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The bodies of Scan, Loop and If."""
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def ancestors(nodes: Sequence[NodeProto], tensor: str) -> list[NodeProto]:
    """The nodes from which `tensor` is computed, in the order of `nodes`."""
    needed, found = {tensor}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            found.append(node)
            needed |= reads_of(node)
    return found[::-1]


def bypass_identities(graph: GraphProto) -> None:
    """Remove each Identity whose output is no output of the graph."""
    outputs = {value.name for value in graph.output}
    names: dict[str, str] = {}
    kept = []
    for node in graph.node:
        rename_reads([node], names)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            names[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def drop_dead(graph: GraphProto, outputs: Collection[str] | None = None) -> None:
    """Remove nodes, initializers and inputs from which no output can be reached.

    The nodes are in topological order;     `outputs` stands for the graph's own if it is given.
    """
    needed = set(outputs) if outputs is not None else {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            live.append(node)
            needed |= reads_of(node)
    replace_nodes(graph, reversed(live))
    for values in (graph.initializer, graph.input):
        kept = [copy_of(value) for value in values if value.name in needed]
        del values[:]
        values.extend(kept)
