"""The order of the nodes in the file, so that ONNX Runtime frees activations as the backward pass goes.

Its sessions run nodes in the order of a depth-first walk that starts at the ends of the graph and enters,
of all that a node reads, what lies furthest back in the file first.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto

from export.graphs.graph_edit import reads_of, replace_nodes


def take_gradients_early(training: ModelProto, gradients: Collection[str]) -> None:
    """Move the nodes that make `gradients` behind all others of the backward pass, the first made last.

    As the gradient builder leaves them, the walk enters the gradient of the first layer first: it goes
    through the whole backward pass, and whatever the gradients of the other layers are made of is kept in
    memory until it is over.
    """
    makers = [node for node in training.graph.node if not set(gradients).isdisjoint(node.output)]
    made = {name for node in makers for name in node.output}
    others = [node for node in training.graph.node if made.isdisjoint(node.output)]
    at = next(i for i, node in enumerate(others) if not made.isdisjoint(reads_of(node)))
    replace_nodes(training.graph, [*others[:at], *makers[::-1], *others[at:]])
