"""Appends nodes and constants to an ONNX graph, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

Dims = Sequence[int | str]  # a string is a symbolic dimension


@dataclass(frozen=True, slots=True)
class GraphBuilder:
    """A graph that grows; each method answers the name of the tensor that it made.

    Nodes go to the end of the graph, or into the list `nodes` where the caller finds another place for them.
    """

    graph: GraphProto
    nodes: list[NodeProto] | None = None

    def node(
        self, op_type: str, inputs: Iterable[str], output: str, *more: str, name: str = "", **attributes: Any
    ) -> str:
        """Append a node and answer its first output, by which it is named if no `name` is given."""
        made = helper.make_node(op_type, list(inputs), [output, *more], name=name or output, **attributes)
        if self.nodes is None:
            self.graph.node.append(made)
        else:
            self.nodes.append(made)
        return output

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Append a small constant, unless one of this name, and then of this value, stands already."""
        made = numpy_helper.from_array(np.asarray(value), name)
        present = next((tensor for tensor in self.graph.initializer if tensor.name == name), None)
        if present is None:
            self.graph.initializer.append(made)
        else:
            assert present.data_type == made.data_type, f"two types of {name}"
            assert np.array_equal(numpy_helper.to_array(present), value), f"two values of {name}"
        return name

    def input(self, name: str, dims: Dims, elem_type: int = TensorProto.FLOAT) -> str:
        """Append a graph input."""
        self.graph.input.append(helper.make_tensor_value_info(name, elem_type, dims))
        return name

    def output(self, name: str, dims: Dims | None, elem_type: int = TensorProto.FLOAT) -> None:
        """Make a tensor a graph output; None is an unknown shape."""
        self.graph.output.append(helper.make_tensor_value_info(name, elem_type, dims))

    def only_outputs(self, outputs: Mapping[str, Dims | None]) -> None:
        """Make these float32 tensors the graph's outputs, and no others."""
        del self.graph.output[:]
        for name, dims in outputs.items():
            self.output(name, dims)
