from __future__ import annotations

import pytest
from onnx import ModelProto, helper
from torch import nn

from export.targets import find_targets
from hetlora.errors import ModelNotExportable


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 6)
        self.dense = nn.Linear(6, 4)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Attention(), Attention()])
        self.dense = nn.Linear(4, 4)
        self.pooler = nn.Linear(4, 4)


def _graph(*names: str) -> ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], [f"y{i}"], name=name) for i, name in enumerate(names)]
    return helper.make_model(helper.make_graph(nodes, "graph", [], []))


GRAPH = _graph(
    "/layer.1/query/MatMul",
    "/layer.0/query/MatMul",
    "/layer.0/dense/MatMul",
    "/layer.1/dense/MatMul",
    "/dense/MatMul",
)


def _names(*targets: str, graph: ModelProto = GRAPH) -> list[str]:
    return [module.name for module in find_targets(Encoder(), graph, targets)]


def test_ending_matches_every_layer_in_order_of_names() -> None:
    assert _names("query") == ["layer.0.query", "layer.1.query"]


def test_whole_name_matches_one_module() -> None:
    assert _names("layer.1.query") == ["layer.1.query"]


def test_ending_matches_whole_words_only() -> None:
    with pytest.raises(ModelNotExportable):
        _names("uery")


def test_name_at_the_root_matches_as_well_as_below() -> None:
    assert _names("dense") == ["dense", "layer.0.dense", "layer.1.dense"]


def test_module_named_by_two_targets_comes_once() -> None:
    assert _names("query", "layer.0.query") == ["layer.0.query", "layer.1.query"]


def test_features_are_the_layers_own() -> None:
    (module,) = find_targets(Encoder(), GRAPH, ["layer.0.query"])
    assert (module.in_features, module.out_features) == (4, 6)


def test_near_matches_of_an_unknown_target_are_named() -> None:
    with pytest.raises(ModelNotExportable, match=r"got 'qeury'; expected near matches \['query'\]"):
        _names("qeury")


def test_endings_are_listed_when_nothing_is_near() -> None:
    with pytest.raises(ModelNotExportable, match=r"one of \['dense', 'query'\]"):
        _names("zzz")


def test_layer_that_the_graph_leaves_out_is_no_target() -> None:
    with pytest.raises(ModelNotExportable, match="matches no linear layer"):
        _names("pooler")


@pytest.mark.parametrize("second_call", ["/layer.0/query_1/MatMul", "/layer.0_1/query/MatMul"])
def test_layer_that_the_graph_runs_twice_is_no_target(second_call: str) -> None:
    twice = _graph("/layer.0/query/MatMul", second_call, "/layer.1/query/MatMul")
    assert _names("query", graph=twice) == ["layer.1.query"]


def test_layers_whose_own_names_end_in_numbers_are_targets() -> None:
    encoder = nn.ModuleDict({"fc_1": nn.Linear(2, 2), "fc_2": nn.Linear(2, 2)})
    modules = find_targets(encoder, _graph("/fc_1/MatMul", "/fc_2/MatMul"), ["fc_1", "fc_2"])
    assert [module.name for module in modules] == ["fc_1", "fc_2"]


def test_no_targets_are_refused() -> None:
    with pytest.raises(ModelNotExportable, match="at least one"):
        _names()
