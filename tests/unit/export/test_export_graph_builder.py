"""What is appended to a graph, and small edits of it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import GraphProto, NodeProto

from export.graphs.graph_builder import GraphBuilder
from export.graphs.graph_edit import drop_dead, drop_inputs, scope_of


def test_node_is_named_by_its_first_output_or_as_asked() -> None:
    graph = GraphProto()
    b = GraphBuilder(graph)
    assert b.node("Split", ["x"], "left", "right", axis=1) == "left"
    assert b.node("Add", ["left", "right"], "sum", name="scope/add") == "sum"
    assert [(node.name, list(node.output)) for node in graph.node] == [
        ("left", ["left", "right"]),
        ("scope/add", ["sum"]),
    ]


def test_nodes_for_another_place_are_kept_apart() -> None:
    graph, nodes = GraphProto(), list[NodeProto]()
    b = GraphBuilder(graph, nodes)
    b.node("Add", ["x", b.constant("one", np.float32(1))], "y")
    assert [node.name for node in nodes] == ["y"]
    assert not graph.node
    assert [tensor.name for tensor in graph.initializer] == ["one"]


def test_constant_stands_once() -> None:
    graph = GraphProto()
    b = GraphBuilder(graph)
    assert b.constant("axis", np.array([1])) == b.constant("axis", np.array([1])) == "axis"
    assert len(graph.initializer) == 1


@pytest.mark.parametrize("other", [np.array([2]), np.array(1), np.array([1, 1]), np.array([1.0])])
def test_name_for_two_constants_is_a_bug(other: np.ndarray) -> None:
    b = GraphBuilder(GraphProto())
    b.constant("axis", np.array([1]))
    with pytest.raises(AssertionError, match="of axis"):
        b.constant("axis", other)


def test_inputs_are_dropped_by_name_and_by_use() -> None:
    graph = GraphProto()
    b = GraphBuilder(graph)
    for name in ("x", "y", "z"):
        b.input(name, [2])
    b.node("Relu", ["x"], "out")
    b.only_outputs({"gone": None})
    b.only_outputs({"out": [2]})
    drop_inputs(graph, {"y", "never"})
    assert [value.name for value in graph.input] == ["x", "z"]
    drop_dead(graph)
    assert [value.name for value in graph.input] == ["x"]
    assert [value.name for value in graph.output] == ["out"]


@pytest.mark.parametrize(
    ("name", "scope"), [("/layer.0/key/MatMul", "layer.0.key"), ("MatMul", ""), ("", ""), ("/MatMul", "")]
)
def test_module_path_is_read_off_the_name_of_a_node(name: str, scope: str) -> None:
    assert scope_of(name) == scope
