"""What every pass needs of ONNX graphs: who reads a tensor, and small edits of nodes and inputs."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
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


def drop_inputs(graph: GraphProto, names: Container[str]) -> None:
    """Remove the graph inputs of these names, if they are there."""
    kept = [copy_of(value) for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(kept)


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


def scope_of(name: str) -> str:
    """The PyTorch module path that the exporter left in a node's name: /layer.0/key/MatMul -> layer.0.key."""
    return name.rpartition("/")[0].strip("/").replace("/", ".")


def in_words(node: NodeProto) -> str:
    """Operator and module, for messages."""
    return f"operator {node.op_type} of module {scope_of(node.name) or 'the model itself'}"


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


def bypass(graph: GraphProto, is_idle: Callable[[NodeProto], bool]) -> None:
    """Remove nodes that answer what they read, but for those that make an output of the graph."""
    outputs = {value.name for value in graph.output}
    names: dict[str, str] = {}
    kept = []
    for node in graph.node:
        rename_reads([node], names)
        if is_idle(node) and node.output[0] not in outputs:
            names[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def bypass_identities(graph: GraphProto) -> None:
    """Remove each Identity whose output is no output of the graph."""
    bypass(graph, lambda node: node.op_type == "Identity")


def drop_dead(graph: GraphProto) -> None:
    """Remove nodes, which are in topological order, initializers and inputs that no output is made from."""
    needed = {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            live.append(node)
            needed |= reads_of(node)
    replace_nodes(graph, reversed(live))
    drop_inputs(graph, {value.name for value in graph.input} - needed)
    initializers = [copy_of(tensor) for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def strip_notes(model: ModelProto) -> None:
    """Remove what no runtime needs: stack traces, origins, shapes of tensors within, domains of no node.

    A runtime refuses versions of a domain that it does not know, whether or not any node is of it.
    """
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    used = {"", *_domains(model.graph)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _domains(graph: GraphProto) -> set[str]:
    inner = (_domains(below) for node in graph.node for below in subgraphs(node))
    return {node.domain for node in graph.node}.union(*inner)
