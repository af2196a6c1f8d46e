"""Files of a model that say what cannot be, and places that cannot hold a bundle: each is told by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from parity import export_family
from safetensors.numpy import load_file, save_file
from tiny_families import write_tiny_family
from tokenizers import Tokenizer

from export.bundle_writer import export_bundle
from export.cost.liveness import live_while_running
from export.new_folder import whole_folder_or_none
from export.weights.precision import encode
from hetlora.errors import ModelNotExportable


def _change_config(model: Path, name: str = "config.json", **fields: Any) -> None:
    path = model / name
    config = json.loads(path.read_bytes()) if path.exists() else {}
    path.write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": ["x"], "auto_map": {"AutoConfig": "x.X"}}, "never run; got model_type"),
        ({"max_position_embeddings": None}, "how many positions"),
        ({"max_position_embeddings": "abc"}, "cannot be read|how many positions"),
        ({"vocab_size": 3}, "tokenizer is of another model"),
        ({"eos_token_id": -1}, "no token that ends a text; got eos_token_id -1"),
        ({"eos_token_id": "x"}, "no token that ends a text|cannot be read"),
    ],
)
def test_configuration_that_cannot_be_is_named(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    model = write_tiny_family(tmp_path / "model", "smollm")
    (model / "generation_config.json").unlink()
    _change_config(model, **fields)
    with pytest.raises(ModelNotExportable, match=words):
        export_family("smollm", model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_configuration_nested_without_end_is_refused(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "smollm")
    (model / "config.json").write_text("[" * 200_000)
    with pytest.raises(ModelNotExportable, match=r"config\.json of the model cannot be read"):
        export_family("smollm", model, tmp_path / "bundle")


@pytest.mark.parametrize(
    "fields",
    [
        {"image_mean": None},
        {"image_mean": 5},
        {"image_mean": "abc"},
        {"image_mean": [0.5]},
        {"image_std": [0.5, 0.0, 0.5]},
        {"image_std": [0.5, float("nan"), 0.5]},
    ],
)
def test_pictures_need_a_mean_and_a_deviation_for_each_channel(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    model = write_tiny_family(tmp_path / "model", "vit")
    _change_config(model, "preprocessor_config.json", **fields)
    with pytest.raises(ModelNotExportable, match=r"preprocessor_config\.json .* expected 3 numbers each"):
        export_family("vit", model, tmp_path / "bundle")


def test_model_with_a_decoder_is_no_classifier_of_texts(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "t5")
    with pytest.raises(ModelNotExportable, match=r"got t5, .* text2text-generation"):
        export_bundle(str(model), tmp_path / "bundle", labels=["a", "b"], targets=["q"], max_rank=2)


@pytest.mark.parametrize("start", [None, -1, "x", 10**6])
def test_decoder_that_begins_with_no_token_is_refused(tmp_path: Path, start: object) -> None:
    model = write_tiny_family(tmp_path / "model", "t5")
    _change_config(model, decoder_start_token_id=start)
    with pytest.raises(ModelNotExportable, match=r"how its decoder begins|cannot be read"):
        export_family("t5", model, tmp_path / "bundle")


def test_model_of_several_parts_is_refused(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "gemma3")
    text = json.loads((model / "config.json").read_bytes())
    (model / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    with pytest.raises(ModelNotExportable, match="weights of the model are missing"):
        export_family("gemma3", model, tmp_path / "bundle")


def test_index_nested_without_end_is_refused(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "smollm")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text("[" * 200_000)
    with pytest.raises(ModelNotExportable, match=r"index\.json of the model cannot be read"):
        export_family("smollm", model, tmp_path / "bundle")


def test_tied_weight_is_found_under_any_of_its_names(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "t5")
    expected = export_family("t5", model, tmp_path / "expected").manifest.files
    weights = load_file(model / "model.safetensors")
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert export_family("t5", model, tmp_path / "bundle").manifest.files == expected


def test_number_that_would_round_to_infinity_is_refused() -> None:
    largest = np.float32((2 - 2**-7) * 2.0**127)
    assert encode(np.array([largest]), "bfloat16").data == b"\x7f\x7f"
    with pytest.raises(OverflowError, match=r"3\.4e\+38 in bfloat16"):
        encode(np.array([3.4e38], np.float32), "bfloat16")


def test_tokenizer_in_the_bundle_is_the_models_own(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "modèle", "smollm")
    bundle = export_family("smollm", model, tmp_path / "bündel")
    stored = Tokenizer.from_file(str(bundle.path(str(bundle.manifest.graphs.tokenizer))))
    assert stored.get_vocab() == Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab()


def test_two_that_write_one_bundle_do_not_touch_each_others_files(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first, second = whole_folder_or_none(out), whole_folder_or_none(out)
    for name, writer in (("first", first), ("second", second)):
        (writer.__enter__() / "file").write_text(name)
    first.__exit__(None, None, None)
    with pytest.raises(ModelNotExportable, match="cannot be written"):  # the first's bundle stands there
        second.__exit__(None, None, None)
    assert (out / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_place_that_is_a_link_or_has_no_name_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, words in ((tmp_path / "link", "is taken"), (tmp_path / ("L" * 300), "cannot be written")):
        with pytest.raises(ModelNotExportable, match=words), whole_folder_or_none(out):
            pytest.fail("it began")


def test_output_that_nobody_asks_for_takes_no_memory() -> None:
    graph = helper.make_graph(
        [helper.make_node("Dropout", ["x"], ["y", ""]), helper.make_node("Split", ["y"], ["", "z"])],
        "graph",
        [],
        [onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )
    assert [moment.sum() for moment in live_while_running(graph, {})] == [0, 0]
