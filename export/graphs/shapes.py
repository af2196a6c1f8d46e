"""Symbolic shapes: inferred once, then every shape that nodes compute at run time is one of a few vectors.

Exporters leave chains of Shape, Gather, Unsqueeze and Concat behind, thousands in a small decoder. Known
shapes also keep the gradient builder from adding a reduction to every operation that might have broadcast.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference  # type: ignore[import-untyped]

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import drop_dead, in_words, rename_reads, replace_nodes
from export.quiet import first_line
from hetlora.errors import ModelNotExportable

ROWS: Final = "rows"  # all the axes before the last one in one

_PREFIX: Final = "shape/"

Dim = int | str
Shape = tuple[Dim, ...]


def with_shapes(model: ModelProto) -> ModelProto:
    """The model with the shape of every tensor that can be told, as symbols of its inputs.

    Raises:
        ModelNotExportable: shapes that depend on the values of tensors, as where experts are chosen.
    """
    try:
        inferred: ModelProto = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception as error:  # it raises whatever a shape that it does not know leads to
        raise ModelNotExportable(
            f"the shapes of the model's tensors cannot be told before it runs, from {_place(error)} on",
            got=first_line(error),
            expected="shapes that depend on the number of texts and tokens alone",
        ) from error
    return inferred


def _place(error: Exception) -> str:
    """The operator and the module at which the inference stood when it raised."""
    frames = [frame.f_locals.get("node") for frame, _ in traceback.walk_tb(error.__traceback__)]
    node = next((node for node in reversed(frames) if isinstance(node, NodeProto)), None)
    return "the beginning" if node is None else in_words(node)


def known_shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes by tensor name, as far as the graph holds them."""
    graph = model.graph
    return {
        value.name: shape_of(value)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def shape_of(value: ValueInfoProto) -> Shape:
    """The dimensions of one tensor; an unknown one is the empty string."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    )


def share_shape_vectors(model: ModelProto) -> None:
    """Let every node that computes or reads a known shape read one vector made at the head of the graph."""
    graph = model.graph
    shapes = known_shapes(model)
    vectors = _ShapeVectors(model)
    names: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in graph.node:
        if node.output[0].startswith(_PREFIX):
            continue  # made at an earlier call, and at the head by now
        rename_reads([node], names)
        whole = not any(attribute.name in ("start", "end") and attribute.i for attribute in node.attribute)
        if node.op_type == "Shape" and whole and vectors.can_make(shapes.get(node.input[0])):
            names[node.output[0]] = vectors.make(shapes[node.input[0]])
            continue
        if node.op_type in ("Reshape", "Expand"):
            shape = shapes.get(node.output[0])
            if vectors.can_make(shape, reshape=node.op_type == "Reshape"):
                node.input[1] = vectors.make(shapes[node.output[0]])
                del node.attribute[:]
        kept.append(node)
    replace_nodes(graph, [*vectors.nodes, *kept])
    drop_dead(graph)


@dataclass
class _ShapeVectors:
    """Makes each distinct shape once, out of the sizes of the first graph input that has each symbol."""

    model: ModelProto
    nodes: list[NodeProto] = field(init=False)
    made: set[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.nodes = [node for node in graph.node if node.output[0].startswith(_PREFIX)]
        self._builder = GraphBuilder(graph, self.nodes)
        self.made = {node.output[0] for node in self.nodes} | {tensor.name for tensor in graph.initializer}
        self._sources: dict[str, tuple[str, int]] = {}
        for value in graph.input:
            for axis, dim in enumerate(shape_of(value)):
                if isinstance(dim, str) and dim and value.type.tensor_type.elem_type != 0:
                    self._sources.setdefault(dim, (value.name, axis))
        # Rows are given by -1 in Reshape alone; the surrogate inputs that carry this symbol go away.
        self._sources.pop(ROWS, None)

    def can_make(self, shape: Shape | None, *, reshape: bool = False) -> bool:
        """Whether every dimension is a number, or a symbol that some input carries."""
        if shape is None:
            return False
        known = {ROWS, *self._sources} if reshape else self._sources.keys()
        return all((dim in known) if isinstance(dim, str) else dim > 0 for dim in shape)

    def make(self, shape: Shape) -> str:
        """The name of the int64 vector that holds `shape`."""
        name = f"{_PREFIX}[{','.join(map(str, shape))}]"
        if name in self.made:
            return name
        self.made.add(name)
        if all(isinstance(dim, int) for dim in shape):
            return self._constant(name, [int(dim) for dim in shape])
        return self._builder.node("Concat", [self._part(dim) for dim in shape], name, axis=0)

    def _part(self, dim: Dim) -> str:
        name = f"{_PREFIX}{dim}"
        if isinstance(dim, int):
            return self._constant(name, [dim])
        if dim == ROWS:
            return self._constant(name, [-1])
        if name not in self.made:
            self.made.add(name)
            source, axis = self._sources[dim]
            self._builder.node("Shape", [source], name, start=axis, end=axis + 1)
        return name

    def _constant(self, name: str, values: list[int]) -> str:
        return self._builder.constant(name, np.array(values, dtype=np.int64))
