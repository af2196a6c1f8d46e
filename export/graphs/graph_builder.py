"""Appends nodes and constants to an ONNX graph, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

Dims = Sequence[int | str]  # a string is a symbolic dimension


@dataclass(frozen=True, slots=True)
class GraphBuilder:
    """A graph that grows; each method answers the name of the tensor that it made."""

    graph: GraphProto

    def node(self, op_type: str, inputs: Iterable[str], output: str, **attributes: Any) -> str:
        """Append a node with one output; the node is named like its output."""
        self.graph.node.append(helper.make_node(op_type, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Append a small constant, unless one of this name stands already."""
        if all(present.name != name for present in self.graph.initializer):
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, name: str, dims: Dims, elem_type: int = TensorProto.FLOAT) -> str:
        """Append a graph input."""
        self.graph.input.append(helper.make_tensor_value_info(name, elem_type, dims))
        return name

    def output(self, name: str, dims: Dims | None) -> None:
        """Make a float32 tensor a graph output; None is an unknown shape."""
        self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))


def scope_of(node: NodeProto) -> str:
    """The PyTorch module path that the exporter left in a node's name: /layer.0/key/MatMul -> layer.0.key."""
    return str(node.name).rpartition("/")[0].strip("/").replace("/", ".")
