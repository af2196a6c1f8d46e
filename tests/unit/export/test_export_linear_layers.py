from __future__ import annotations

import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.graphs.linear_layers import block_of, linear_layers


def _linear(scope: str, weight: str, x: str = "x") -> list[NodeProto]:
    """As nn.Linear is traced: the matrix lies as (out_features, in_features)."""
    return [
        helper.make_node("Transpose", [weight], [f"{scope}/t"], name=f"{scope}/Transpose", perm=[1, 0]),
        helper.make_node("MatMul", [x, f"{scope}/t"], [f"{scope}/y"], name=f"{scope}/MatMul"),
    ]


def _model(nodes: list[NodeProto], **weights: tuple[int, int]) -> ModelProto:
    shapes = {"x": ("batch", "tokens", 4), **weights}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()]
    return helper.make_model(helper.make_graph(nodes, "graph", inputs, []))


def test_linear_layer_is_told_in_pytorch_terms() -> None:
    model = _model(_linear("/h.0/up", "h.0.up.weight"), **{"h.0.up.weight": (6, 4)})
    layer = linear_layers(model)["h.0.up"]
    assert (layer.input, layer.output, layer.weight) == ("x", "/h.0/up/y", "h.0.up.weight")
    assert (layer.in_features, layer.out_features) == (4, 6)
    assert (layer.transposed, layer.shared) == (True, False)
    assert layer.node is model.graph.node[1]


def test_matrix_that_is_read_as_it_lies_has_its_inputs_first() -> None:
    node = helper.make_node("MatMul", ["x", "h.0.c_fc.weight"], ["y"], name="/h.0/c_fc/MatMul")
    layer = linear_layers(_model([node], **{"h.0.c_fc.weight": (4, 6)}))["h.0.c_fc"]
    assert (layer.in_features, layer.out_features, layer.transposed) == (4, 6, False)


def test_product_of_two_activations_is_no_layer() -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"], name="/h.0/attn/MatMul")
    assert linear_layers(_model([node])) == {}


def test_layer_is_named_by_its_weight_where_the_scope_lacks_the_front() -> None:
    model = _model(_linear("/decoder/fc", "model.decoder.fc.weight"), **{"model.decoder.fc.weight": (4, 4)})
    assert list(linear_layers(model)) == ["model.decoder.fc"]


def test_tied_projection_is_shared_and_named_by_its_place() -> None:
    embed = helper.make_node("Gather", ["wte.weight", "ids"], ["e"], name="/wte/Gather")
    model = _model([embed, *_linear("/lm_head", "wte.weight")], **{"wte.weight": (9, 4)})
    layers = linear_layers(model)
    assert {name: layer.shared for name, layer in layers.items()} == {"lm_head": True}


def test_layer_that_runs_twice_is_shared_at_both_places() -> None:
    nodes = _linear("/layer.0/query", "layer.0.query.weight")
    nodes += _linear("/layer.0/query_1", "layer.0.query.weight", x="/layer.0/query/y")
    layers = linear_layers(_model(nodes, **{"layer.0.query.weight": (4, 4)}))
    assert {name: layer.shared for name, layer in layers.items()} == {
        "layer.0.query": True,
        "layer.0.query_1": True,
    }


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("model.layers.3.self_attn.q_proj", "model.layers.3"),
        ("transformer.h.11.mlp.c_fc", "transformer.h.11"),
        ("encoder.layer.0.attention.self.query", "encoder.layer.0"),
        ("encoder.block.2.layer.1.DenseReluDense.wi", "encoder.block.2"),
        ("layers.7", "layers.7"),
        ("h.0.attn", "h.0"),
        ("lm_head", None),
        ("model.layers_norm.0", None),
        ("model.patch.0.proj", None),
    ],
)
def test_block_is_the_outermost_numbered_layer(path: str, block: str | None) -> None:
    assert block_of(path) == block
