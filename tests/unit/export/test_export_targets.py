"""Targets by name, ending and pattern against the linear layers of a graph."""

from __future__ import annotations

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from export.graphs.targets import choose_targets
from hetlora.errors import ModelNotExportable

# A decoder of two blocks, with a gate in the second that runs twice, and an output projection that is tied to
# the embeddings.
_LAYERS = {
    "model.layers.0.attn.q_proj": (4, 4),
    "model.layers.0.mlp.up_proj": (6, 4),
    "model.layers.0.mlp.down_proj": (4, 6),
    "model.layers.1.attn.q_proj": (4, 4),
    "model.layers.1.mlp.up_proj": (6, 4),
    "model.layers.1.mlp.down_proj": (4, 6),
    "model.layers.1.mlp.gate": (4, 4),
}


def _product(scope: str, weight: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Transpose", [weight], [f"{scope}/t"], name=f"{scope}/Transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["x", f"{scope}/t"], [f"{scope}/y"], name=f"{scope}/MatMul"),
    ]


def _decoder() -> ModelProto:
    nodes = [helper.make_node("Gather", ["model.embed.weight", "ids"], ["x"], name="/model/embed/Gather")]
    for name in _LAYERS:
        nodes += _product(f"/{name.replace('.', '/').replace('layers/', 'layers.')}", f"{name}.weight")
    nodes += _product("/model/layers.1/mlp/gate_1", "model.layers.1.mlp.gate.weight")
    nodes += _product("/lm_head", "model.embed.weight")
    weights = {f"{name}.weight": dims for name, dims in _LAYERS.items()} | {"model.embed.weight": (9, 4)}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "decoder", inputs, []))


def _chosen(*targets: str, last_layers: int | None = None) -> list[str]:
    return [module.name for module in choose_targets(_decoder(), targets, last_layers=last_layers)]


def test_features_of_a_chosen_layer_are_its_own() -> None:
    (module,) = choose_targets(_decoder(), ["layers.0.mlp.up_proj"])
    assert (module.in_features, module.out_features) == (4, 6)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("q_proj", ["model.layers.0.attn.q_proj", "model.layers.1.attn.q_proj"]),
        ("attn.q_proj", ["model.layers.0.attn.q_proj", "model.layers.1.attn.q_proj"]),
        ("model.layers.1.attn.q_proj", ["model.layers.1.attn.q_proj"]),
        ("layers.0.mlp.*", ["model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj"]),
        ("layers.[0].*_proj", [name for name in sorted(_LAYERS) if "layers.0." in name]),
        ("model.*.up_proj", ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]),
    ],
)
def test_target_names_endings_and_patterns(target: str, names: list[str]) -> None:
    assert _chosen(target) == names


def test_ending_matches_whole_words_only() -> None:
    with pytest.raises(ModelNotExportable, match="matches no linear layer"):
        _chosen("proj")


def test_module_named_by_two_targets_comes_once() -> None:
    assert _chosen("layers.0.attn.q_proj", "layers.0.attn.*") == ["model.layers.0.attn.q_proj"]


def test_all_linear_is_the_blocks_without_shared_weights() -> None:
    assert _chosen("all-linear") == sorted(name for name in _LAYERS if not name.endswith(".gate"))


def test_last_layers_leave_the_first_ones_out() -> None:
    assert _chosen("q_proj", "*.up_proj", last_layers=1) == [
        "model.layers.1.attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]


def test_all_layers_may_be_the_last_ones() -> None:
    assert _chosen("q_proj", last_layers=2) == _chosen("q_proj")


@pytest.mark.parametrize("count", [0, 3, -1])
def test_more_last_layers_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(ModelNotExportable, match=f"got {count}; expected 1 to 2"):
        _chosen("q_proj", last_layers=count)


def test_target_outside_the_last_layers_is_refused() -> None:
    with pytest.raises(ModelNotExportable, match=r"outside the layers that train; got 'layers.0.mlp.\*'"):
        _chosen("q_proj", "layers.0.mlp.*", last_layers=1)


def test_tied_output_projection_is_refused() -> None:
    with pytest.raises(ModelNotExportable, match=r"lm_head, which reads model\.embed\.weight"):
        _chosen("q_proj", "lm_head")


def test_layer_that_runs_twice_is_refused() -> None:
    with pytest.raises(ModelNotExportable, match="shares its weight"):
        _chosen("gate")


def test_pattern_that_takes_in_a_shared_weight_is_refused() -> None:
    with pytest.raises(ModelNotExportable, match=r"'\*' matches model\.layers\.1\.mlp\.gate,"):
        _chosen("*")


def test_near_matches_of_an_unknown_pattern_are_named() -> None:
    with pytest.raises(ModelNotExportable, match=r"near matches \['q_proj', "):
        _chosen("q_prj")


def test_choosing_nothing_is_refused() -> None:
    with pytest.raises(ModelNotExportable, match="at least one"):
        _chosen()


def test_endings_are_listed_when_nothing_is_near() -> None:
    with pytest.raises(ModelNotExportable, match=r"one of \['attn.q_proj', 'down_proj', "):
        _chosen("zzz")


def test_model_without_linear_layers_is_refused() -> None:
    convolution = helper.make_node("Conv", ["x", "conv.weight"], ["y"], name="/conv/Conv")
    weight = helper.make_tensor_value_info("conv.weight", TensorProto.FLOAT, (2, 3, 3, 3))
    model = helper.make_model(helper.make_graph([convolution], "convolutions", [weight], []))
    with pytest.raises(ModelNotExportable, match="no linear layer that LoRA could adapt"):
        choose_targets(model, ["all-linear"])


def test_model_whose_only_linear_layer_is_tied_is_refused() -> None:
    lookup = helper.make_node("Gather", ["embed.weight", "ids"], ["x"], name="/embed/Gather")
    table = helper.make_tensor_value_info("embed.weight", TensorProto.FLOAT, (9, 4))
    graph = helper.make_graph([lookup, *_product("/lm_head", "embed.weight")], "tied", [table], [])
    with pytest.raises(ModelNotExportable, match="no linear layer that LoRA could adapt"):
        choose_targets(helper.make_model(graph), ["all-linear"])
