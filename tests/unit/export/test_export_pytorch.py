"""The PyTorch part of a bundle: the weights are where the map says, and are there once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from parity import export_family
from safetensors.numpy import load_file
from tiny_families import write_tiny_family
from transformers import BartConfig, BertConfig

from export.bundle_writer import export_bundle
from export.prototype_classifier import read_prototypes
from export.pytorch_files import check_architecture
from hetlora.bundle import Bundle
from hetlora.errors import ModelNotExportable
from hetlora.pytorch_files import WeightMap, WeightPlace, parse_weight_map


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Path:
    return tiny_model_folder


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(
        str(model),
        tmp_path_factory.mktemp("pytorch") / "bundle",
        labels=["weather", "food", "sport"],
        targets=["query", "value"],
        max_rank=8,
        max_tokens=32,
        runtimes=["onnx", "pytorch"],
    )


def _map(bundle: Bundle) -> WeightMap:
    files = bundle.manifest.pytorch
    assert files is not None
    size = bundle.path("base.bin").stat().st_size
    return parse_weight_map(bundle.path(files.weights).read_bytes(), bundle.manifest.task, base_bytes=size)


def _read(bundle: Bundle, place: WeightPlace) -> np.ndarray:
    data = bundle.path("base.bin").read_bytes()[place.offset :][: place.size_bytes]
    return np.frombuffer(data, "<f4").reshape(place.shape)


def test_each_weight_of_the_map_is_that_of_the_checkpoint(model: Path, bundle: Bundle) -> None:
    checkpoint, weights = load_file(model / "model.safetensors"), _map(bundle).weights
    assert weights.keys() == {name for name in checkpoint if not name.startswith("pooler.")}
    for name, place in weights.items():
        assert (_read(bundle, place) == checkpoint[name]).all(), name


def test_prototypes_are_those_of_the_graphs(bundle: Bundle) -> None:
    place = _map(bundle).prototypes
    assert place is not None
    assert (_read(bundle, place) == read_prototypes(bundle)).all()


def test_two_small_files_are_all_that_it_adds(bundle: Bundle, tiny_bundle: Bundle) -> None:
    added = bundle.manifest.files.keys() - tiny_bundle.manifest.files.keys()
    assert added == {"config.json", "weights.json"}
    for name, entry in tiny_bundle.manifest.files.items():
        assert bundle.manifest.files[name] == entry, name


def test_configuration_tells_the_model_and_not_where_it_lay(model: Path, bundle: Bundle) -> None:
    text = bundle.path("config.json").read_text()
    told = json.loads(text)
    assert (told["model_type"], told["num_hidden_layers"], told["hidden_size"]) == ("bert", 2, 32)
    assert str(model) not in text
    assert not [name for name in told if name.startswith("_")]


def test_tied_weight_is_in_the_map_once(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "smollm")
    names = _map(export_family("smollm", model, tmp_path / "bundle", runtimes=("pytorch",))).weights
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_architecture_that_devices_do_not_build_is_refused_before_anything_is_traced() -> None:
    check_architecture(BertConfig(), "text-classification")
    with pytest.raises(ModelNotExportable, match=r"not one for PyTorch .*; got bart; expected one of t5"):
        check_architecture(BartConfig(), "text2text-generation")


def test_configuration_that_devices_would_refuse_is_refused_here(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "gpt2")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "n_ctx": 2**40}))
    with pytest.raises(ModelNotExportable, match=r"devices would not build this model in PyTorch; .*n_ctx"):
        export_family("gpt2", model, tmp_path / "bundle", runtimes=("pytorch",))
    assert not (tmp_path / "bundle").exists()
