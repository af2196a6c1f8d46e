"""A node that is written anew in other operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import in_words
from export.graphs.shapes import Shape
from hetlora.errors import ModelNotExportable


class OldNode:
    """A node to be replaced; what takes its place goes to the end of `nodes`."""

    def __init__(
        self, node: NodeProto, graph: GraphProto, nodes: list[NodeProto], shapes: Mapping[str, Shape]
    ) -> None:
        self.inputs = list(node.input)
        self._node, self._graph, self._shapes = node, graph, shapes
        self._attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        self._builder = GraphBuilder(graph, nodes)
        self._stem = next((name for name in node.output if name), node.op_type)
        self._answered: set[str] = set()

    def attribute(self, name: str, usual: Any = None) -> Any:
        """The value of an attribute, or `usual` where the node does not have it."""
        return self._attributes.get(name, usual)

    def take(self, least: int, most: int | None = None) -> list[str]:
        """Its inputs: from `least` to `most` of them, of which the first `least` are there.

        Raises:
            ModelNotExportable: there are others.
        """
        count, bound = len(self.inputs), least if most is None else most
        if not least <= count <= bound or not all(self.inputs[:least]):
            given = sum(map(bool, self.inputs))
            raise self.refuse(f"{given} inputs", f"{least}" if bound == least else f"{least} to {bound}")
        return self.inputs

    def add(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node on the way to the outputs, named within this one."""
        return self._builder.node(op_type, inputs, f"{self._stem}/{name}", **attributes)

    def answer(self, op_type: str, inputs: Sequence[str], *, output: int = 0, **attributes: Any) -> None:
        """Append the node that makes one of the outputs; of one that is not there, nothing."""
        if output >= len(self._node.output) or not self._node.output[output]:
            return
        self._answered.add(self._builder.node(op_type, inputs, self._node.output[output], **attributes))

    def answer_all(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Append one node that makes all of the outputs."""
        self._builder.node(op_type, inputs, *self._node.output, **attributes)
        self._answered.update(self._node.output)

    def check_answered(self, read: Set[str]) -> None:
        """Raise if something reads an output that nothing makes any more."""
        unanswered = sorted((read & set(self._node.output)) - self._answered)
        if unanswered:
            raise self.refuse(f"a reader of {unanswered[0]}", "none: such gradients are of frozen weights")

    def number(self, value: np.generic | NDArray[Any] | list[int]) -> str:
        """A small constant; one tensor for all nodes that ask for it."""
        array = np.asarray(value)
        return self._builder.constant(f"plain/{array.dtype}{array.tolist()}".replace(" ", ""), array)

    def last_axis_sum(self, tensor: str, name: str) -> str:
        """The sum over the last axis, which stays with a size of 1."""
        return self.add("ReduceSum", [tensor, self.number([-1])], name, keepdims=1)

    def last_axis_mean(self, tensor: str, name: str) -> str:
        """The mean over the last axis, which stays with a size of 1."""
        return self.add("ReduceMean", [tensor, self.number([-1])], name, keepdims=1)

    def shape_of_input(self, position: int) -> Shape:
        """What is known of the shape of an input; an unknown dimension is the empty string."""
        name = self.inputs[position]
        if name not in self._shapes:
            raise self.refuse(f"an unknown shape of {name}", "a known one")
        return self._shapes[name]

    def constant_input(self, position: int) -> NDArray[Any] | None:
        """The value of an input that is a constant of the graph; None of any other."""
        name = self.inputs[position]
        for tensor in self._graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        for node in self._graph.node:
            if node.op_type == "Constant" and name in node.output:
                values = [entry.t for entry in node.attribute if entry.name == "value"]
                return numpy_helper.to_array(values[0]) if values else None
        return None

    def require_last_axis(self) -> None:
        """Raise unless the node works along the last axis, as those of the models that we know do."""
        if self.attribute("axis", -1) != -1:
            raise self.refuse(f"axis {self.attribute('axis')}", "the last one, -1")

    def refuse(self, got: object, expected: str) -> ModelNotExportable:
        """What to raise where the node is not of the kind that is written here."""
        return ModelNotExportable(
            f"{in_words(self._node)} has no form for phones and pages", got=got, expected=expected
        )


Form = Callable[[OldNode], None]
