"""The graphs of a bundle, and of models that the gradient builder would trip over untreated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny_model

from export.bundle_writer import export_bundle
from export.training.lora_graph import factor_shapes, rank_symbol
from hetlora.bundle import Bundle


def _graph(bundle: Bundle, name: str) -> ModelProto:
    return onnx.load(bundle.path(getattr(bundle.manifest.graphs, name)), load_external_data=False)


def _dims(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    return {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in [*model.graph.input, *model.graph.output]
    }


@pytest.mark.parametrize("name", ["training", "eval", "inference"])
def test_adapter_enters_under_peft_keys_at_any_rank(tiny_bundle: Bundle, name: str) -> None:
    dims = _dims(_graph(tiny_bundle, name))
    for key, shape in factor_shapes(tiny_bundle.manifest.adapter.modules, rank_symbol).items():
        assert dims[key] == shape


def test_training_graph_asks_for_tokens_labels_and_penalty(tiny_bundle: Bundle) -> None:
    dims = _dims(_graph(tiny_bundle, "training"))
    tokens = ("batch", "tokens")
    expected = {
        "input_ids": tokens,
        "attention_mask": tokens,
        "token_type_ids": tokens,
        "labels": ("batch",),
        "pruning_decay": (),
        "pruning_penalty": (),
        "loss": (),
    }
    assert {name: dims[name] for name in expected} == expected


def test_inference_graph_answers_logits_of_the_labels(tiny_bundle: Bundle) -> None:
    model = _graph(tiny_bundle, "inference")
    assert [value.name for value in model.graph.output] == ["logits"]
    assert _dims(model)["logits"] == ("batch", 3)


def test_optimizer_is_the_manifests_adamw(tiny_bundle: Bundle) -> None:
    (node,) = _graph(tiny_bundle, "optimizer").graph.node
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    optimizer = tiny_bundle.manifest.optimizer
    expected = {
        "alpha": optimizer.beta1,
        "beta": optimizer.beta2,
        "epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
    }
    assert {name: attributes[name] for name in expected} == pytest.approx(expected)
    assert attributes["adam_mode"] == 0


def test_model_with_equal_weights_can_be_trained(tmp_path: Path) -> None:
    # A fresh model: its norms are all ones, its biases all zeros.
    folder = write_tiny_model(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if weight.ndim == 1:
            weights[name] = torch.full_like(weight, 1.0 if name.endswith("LayerNorm.weight") else 0.0)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    bundle = export_bundle(str(folder), tmp_path / "bundle", labels=["a", "b"], targets=["query"], max_rank=4)
    norms = [t for t in _graph(bundle, "training").graph.initializer if "LayerNorm.weight" in t.name]
    places = {(entry.key, entry.value) for norm in norms for entry in norm.external_data}
    assert len(norms) == 5  # each norm has an initializer of its own,
    assert len(places) == 3  # but all lie in one place: file, offset, length


def test_rank_marker_avoids_the_models_own_widths(tmp_path: Path) -> None:
    # 31 labels, 31 the first marker: the label count must not turn into a rank.
    labels = [f"label{number}" for number in range(31)]
    folder = write_tiny_model(tmp_path / "tiny")
    bundle = export_bundle(str(folder), tmp_path / "bundle", labels=labels, targets=["query"], max_rank=4)
    assert _dims(_graph(bundle, "inference"))["logits"] == ("batch", 31)
    dims = _dims(_graph(bundle, "training"))
    symbolic = [name for name, shape in dims.items() if any(str(dim).startswith("rank/") for dim in shape)]
    # two layers, one module each: two factors, each with a gradient buffer
    assert len(symbolic) == 2 * 2 * 2
    assert all("lora_" in name for name in symbolic)


def test_base_weights_are_the_models_own(tiny_bundle: Bundle, tiny_model_folder: Path) -> None:
    model = onnx.load(tiny_bundle.path(tiny_bundle.manifest.graphs.training))  # with its external data
    (table,) = (
        tensor for tensor in model.graph.initializer if tensor.name.endswith("word_embeddings.weight")
    )
    expected = load_file(tiny_model_folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert (onnx.numpy_helper.to_array(table) == np.asarray(expected)).all()
