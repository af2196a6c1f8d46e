"""What a graph keeps in memory while each of its nodes runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from onnx import GraphProto, NodeProto

from export.cost.tensor_sizes import NOTHING, Sized, Terms, body_sizes, sizes_in
from export.graphs.graph_edit import reads_of, subgraphs

# Operators of ONNX Runtime whose output is its input under another name.
ALIASES: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "PassThrough")


def live_while_running(graph: GraphProto, sizes: Mapping[str, Sized]) -> Iterator[Terms]:
    """The bytes of all tensors that are alive while a node runs, for each node in turn.

    A tensor is alive from the node that makes it to the last that reads it. What is given to the graph,
    inputs and initializers, is not counted, nor what kernels hold for themselves.
    """
    buffers = _buffers(graph)
    freed = _freed_after(graph, buffers)
    live, taken = NOTHING.copy(), dict[str, Terms]()
    for number, node in enumerate(graph.node):
        for name in node.output:
            if name and buffers[name] == name:
                taken[name] = bytes_in(sizes, name)
                live = live + taken[name]
        for within in _within(node, sizes):
            yield live + within
        yield live
        for name in freed[number]:
            live = live - taken.pop(name)


def bytes_in(sizes: Mapping[str, Sized], name: str) -> Terms:
    """The bytes of a tensor; of what nobody knows, none: vectors that hold shapes, and numbers."""
    terms = sizes[name].bytes() if name in sizes else None
    return NOTHING if terms is None else terms


def _within(node: NodeProto, sizes: Mapping[str, Sized]) -> Iterator[Terms]:
    for body in subgraphs(node):
        inner = body_sizes(node, sizes) if node.op_type == "Scan" else sizes_in(body, sizes)
        yield from live_while_running(body, inner)


def _buffers(graph: GraphProto) -> dict[str, str]:
    """By the tensors that the nodes make: the tensor in whose memory each lies, mostly its own."""
    buffers: dict[str, str] = {}
    for node in graph.node:
        for position, name in enumerate(node.output):
            if not name:  # an output that nobody asks for
                continue
            aliased = node.op_type in ALIASES and (position == 0 or node.op_type == "PassThrough")
            source = node.input[position] if aliased else name
            buffers[name] = buffers.get(source, source)
    return buffers


def _freed_after(graph: GraphProto, buffers: Mapping[str, str]) -> dict[int, list[str]]:
    """The buffers that the graph itself made, by the number of the last node that needs them."""
    last: dict[str, int] = {}
    for number, node in enumerate(graph.node):
        for name in (*node.output, *reads_of(node)):
            if name in buffers:
                last[buffers[name]] = number
    kept = {buffers.get(value.name, value.name) for value in graph.output}
    freed = defaultdict(list)
    for name, number in last.items():
        if name in buffers and buffers[name] == name and name not in kept:
            freed[number].append(name)
    return freed
