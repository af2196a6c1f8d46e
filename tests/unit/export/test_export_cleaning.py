from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graphs.cleaning import clean
from export.graphs.linear_layers import linear_layers

Shapes = dict[str, Sequence[int | str]]


def _constant(name: str, value: NDArray[np.generic]) -> NodeProto:
    return helper.make_node("Constant", [], [name], name=f"/{name}", value=numpy_helper.from_array(value))


def _model(nodes: list[NodeProto], inputs: Shapes, output: str = "y") -> ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", values, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _assert_same(before: ModelProto, after: ModelProto) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.normal(size=[dim.dim_value or 3 for dim in value.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for value in before.graph.input
    }
    answers = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {value.name: feeds[value.name] for value in model.graph.input}
        )[0]
        for model in (before, after)
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-6)


def test_constants_become_initializers() -> None:
    model = _model(
        [_constant("two", np.float32(2)), helper.make_node("Mul", ["x", "two"], ["y"])], {"x": [2]}
    )
    cleaned = clean(model)
    assert _ops(cleaned) == ["Mul"]
    assert [tensor.name for tensor in cleaned.graph.initializer] == ["two"]


def test_nodes_and_inputs_that_nobody_reads_go() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Neg", ["unread"], ["nowhere"]),
        helper.make_node("Relu", ["same"], ["y"]),
    ]
    cleaned = clean(_model(nodes, {"x": [2], "unread": [2]}))
    assert _ops(cleaned) == ["Relu"]
    assert list(cleaned.graph.node[0].input) == ["x"]
    assert [value.name for value in cleaned.graph.input] == ["x"]


def test_cast_to_its_own_type_goes_and_another_stays() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["same"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
    ]
    cleaned = clean(_model(nodes, {"x": [2]}))
    assert [(node.op_type, list(node.input)) for node in cleaned.graph.node] == [
        ("Cast", ["x"]),
        ("Cast", ["whole"]),
    ]


def test_stack_traces_go() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], doc_string="somebody's/home/model.py:12")
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="somebody's/home/model.py:12")
    cleaned = clean(_model([node], {"x": [2]}))
    assert b"somebody" not in cleaned.SerializeToString()


def test_norm_has_the_outputs_that_its_gradient_reads() -> None:
    node = helper.make_node("LayerNormalization", ["x", "w", "b"], ["y"], axis=-1)
    cleaned = clean(_model([node], {"x": ["n", 4], "w": [4], "b": [4]}))
    assert list(cleaned.graph.node[0].output) == ["y", "y_mean", "y_inverse_deviation"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_a_weight_becomes_product_and_sum(transposed: int) -> None:
    node = helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["y"], name="/fc/Gemm", transB=transposed)
    weight = [6, 4] if transposed else [4, 6]
    model = _model([node], {"x": ["n", 4], "fc.weight": weight, "fc.bias": [6]})
    cleaned = clean(model)
    assert _ops(cleaned) == ["Transpose"] * transposed + ["MatMul", "Add"]
    layer = linear_layers(cleaned)["fc"]
    assert (layer.in_features, layer.out_features, layer.transposed) == (4, 6, bool(transposed))
    assert cleaned.graph.node[-1].name == "/fc/Gemm_sum"
    _assert_same(model, cleaned)


def test_gemm_that_does_more_stays() -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="/fc/Gemm", alpha=0.5)
    assert _ops(clean(_model([node], {"x": ["n", 4], "w": [4, 6], "b": [6]}))) == ["Gemm"]


def _rms(axis: int = -1, exponent: float = 2.0) -> list[NodeProto]:
    """As Llama's norm is traced: x * (1 / sqrt(mean(x^2) + epsilon)), times the weight."""
    return [
        _constant("two", np.float32(exponent)),
        _constant("axis", np.array([axis])),
        _constant("epsilon", np.float32(1e-3)),
        _constant("one", np.float32(1)),
        helper.make_node("Pow", ["x", "two"], ["square"], name="/norm/Pow"),
        helper.make_node("ReduceMean", ["square", "axis"], ["mean"], name="/norm/ReduceMean"),
        helper.make_node("Add", ["mean", "epsilon"], ["positive"], name="/norm/Add"),
        helper.make_node("Sqrt", ["positive"], ["root"], name="/norm/Sqrt"),
        helper.make_node("Div", ["one", "root"], ["inverse"], name="/norm/Div"),
        helper.make_node("Mul", ["x", "inverse"], ["normal"], name="/norm/Mul"),
        helper.make_node("Mul", ["w", "normal"], ["y"], name="/norm/Mul_1"),
    ]


def test_rms_norm_becomes_one_node() -> None:
    model = _model(_rms(), {"x": ["n", 4], "w": [4]})
    cleaned = clean(model)
    assert _ops(cleaned) == ["SimplifiedLayerNormalization"]
    assert cleaned.graph.node[0].name == "/norm/Mul_1"
    _assert_same(model, cleaned)


def test_rms_norm_by_division_becomes_one_node() -> None:
    nodes = [node for node in _rms() if node.name not in ("/norm/Div", "/norm/Mul", "/norm/Mul_1", "/one")]
    nodes.append(helper.make_node("Div", ["x", "root"], ["normal"], name="/norm/Div"))
    nodes.append(helper.make_node("Mul", ["normal", "w"], ["y"], name="/norm/Mul"))
    model = _model(nodes, {"x": ["n", 4], "w": [4]})
    cleaned = clean(model)
    assert _ops(cleaned) == ["SimplifiedLayerNormalization"]
    _assert_same(model, cleaned)


def _first_axis() -> ModelProto:
    return _model(_rms(axis=0), {"x": [4, 4], "w": [4]})


def _other_power() -> ModelProto:
    return _model(_rms(exponent=4.0), {"x": ["n", 4], "w": [4]})


def _matrix_as_weight() -> ModelProto:
    return _model(_rms(), {"x": [3, 4], "w": [3, 4]})


def _second_reader() -> ModelProto:
    nodes = _rms()
    nodes[-1].output[0] = "scaled"
    nodes.append(helper.make_node("Add", ["scaled", "root"], ["y"]))
    return _model(nodes, {"x": ["n", 4], "w": [4]})


@pytest.mark.parametrize("make", [_first_axis, _other_power, _matrix_as_weight, _second_reader])
def test_what_only_looks_like_an_rms_norm_stays(make: Callable[[], ModelProto]) -> None:
    cleaned = clean(make())
    assert "SimplifiedLayerNormalization" not in _ops(cleaned)
    _assert_same(make(), cleaned)
