"""What a bundle may tell PyTorch to build: nothing that is code, and nothing larger than its weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetlora.errors import BundleInvalid
from hetlora.manifest import parse_manifest
from hetlora.pytorch_files import WeightMap, WeightPlace, parse_config, parse_weight_map

# Two rows of three numbers, and behind them three more: 36 bytes.
WEIGHTS = WeightMap(
    weights={"a.weight": WeightPlace(offset=0, shape=(2, 3)), "a.bias": WeightPlace(offset=24, shape=(3,))}
)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "vocab_size": 50257, "rope": {"theta": [10_000]}}


def _refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleInvalid, match=words):
        parse_config(json.dumps(config).encode(), "text-generation", WEIGHTS)


def test_map_that_ends_where_the_file_ends_is_read() -> None:
    assert parse_weight_map(WEIGHTS.to_json(), "text-generation", base_bytes=36) == WEIGHTS


def test_map_beyond_the_file_is_refused() -> None:
    with pytest.raises(BundleInvalid, match="leads beyond the base weights; got 36; expected up to 35 bytes"):
        parse_weight_map(WEIGHTS.to_json(), "text-generation", base_bytes=35)


def test_weight_of_sizes_that_multiply_beyond_any_file_is_refused() -> None:
    far = WeightMap(weights={"a": WeightPlace(offset=0, shape=(2**40, 2**40))})
    with pytest.raises(BundleInvalid, match="leads beyond the base weights"):
        parse_weight_map(far.to_json(), "text-generation", base_bytes=36)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"weights": {"a": {"offset": 2, "shape": [1]}}}', id="within a number"),
        pytest.param(b'{"weights": {"a": {"offset": -4, "shape": [1]}}}', id="before the file"),
        pytest.param(b'{"weights": {"a": {"offset": 0, "shape": [-1]}}}', id="a negative size"),
        pytest.param(b'{"weights": {"a": {"offset": 0, "shape": [true]}}}', id="a size that is no number"),
        pytest.param(b'{"weights": {}, "more": 1}', id="a field more"),
        pytest.param(b"[" * 100_000, id="deeper than a reader goes"),
    ],
)
def test_map_that_does_not_fit_its_schema_is_refused(data: bytes) -> None:
    with pytest.raises(BundleInvalid, match="does not fit its schema"):
        parse_weight_map(data, "text-generation", base_bytes=36)


def test_prototypes_belong_to_text_classes_alone() -> None:
    with_them = WEIGHTS.model_copy(update={"prototypes": WeightPlace(offset=0, shape=(3, 3))})
    assert parse_weight_map(with_them.to_json(), "text-classification", base_bytes=36) == with_them
    with pytest.raises(BundleInvalid, match="prototypes"):
        parse_weight_map(with_them.to_json(), "text-generation", base_bytes=36)
    with pytest.raises(BundleInvalid, match="prototypes"):
        parse_weight_map(WEIGHTS.to_json(), "text-classification", base_bytes=36)


def test_configuration_comes_back_as_it_was_written() -> None:
    assert parse_config(json.dumps(GPT2).encode(), "text-generation", WEIGHTS) == GPT2


@pytest.mark.parametrize("model_type", ["encoder-decoder", "rag", "timm_wrapper", "bert", None, ["gpt2"]])
def test_architecture_that_is_not_named_for_the_task_is_refused(model_type: object) -> None:
    _refused({**GPT2, "model_type": model_type}, "architecture is not known for text-generation")


@pytest.mark.parametrize(
    "name",
    ["auto_map", "_attn_implementation", "attn_implementation", "quantization_config", "_name_or_path"],
)
def test_name_that_leads_elsewhere_is_refused(name: str) -> None:
    _refused({**GPT2, name: "x"}, f"asks for more than a model; got .*{name}")


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("n_layer", 3, 2),  # there are two weights, and each layer has one of its own
        ("num_labels", 2**16 + 1, 2**16),
        ("n_positions", 2**24 + 1, 2**24),
        ("n_embd", -(2**30), 2**24),
        ("rope", {"theta": [1, {"deep": 2**24 + 1}]}, 2**24),
    ],
)
def test_number_that_no_such_model_needs_is_refused(name: str, value: object, most: int) -> None:
    _refused({**GPT2, name: value}, f"{name} in the configuration of the model is too large; .* {most}")


def test_files_that_are_too_large_are_not_parsed() -> None:
    blank = b" " * (16 * 1024 * 1024 + 1)
    with pytest.raises(BundleInvalid, match="map of the weights is too large"):
        parse_weight_map(blank, "text-generation", base_bytes=36)
    with pytest.raises(BundleInvalid, match="configuration of the model is too large"):
        parse_config(blank, "text-generation", WEIGHTS)


@given(st.binary(max_size=200) | st.from_regex(rb"[\[\]{}\":,0-9a-z ]{0,60}"))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (
        lambda: parse_config(data, "text-generation", WEIGHTS),
        lambda: parse_weight_map(data, "text-generation", base_bytes=36),
    ):
        try:
            read()
        except BundleInvalid:
            continue
        json.loads(data)


def test_nesting_as_deep_as_a_file_may_be_ends_in_an_answer() -> None:
    nested = b'{"model_type": "gpt2", "x": ' + b"[" * 900 + b"]" * 900 + b"}"
    assert parse_config(nested, "text-generation", WEIGHTS)["model_type"] == "gpt2"
    with pytest.raises(BundleInvalid, match="is no JSON"):
        parse_config(b"[" * 500_000, "text-generation", WEIGHTS)


def test_manifest_that_has_no_such_section_is_written_as_ever(manifest_fields: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps(manifest_fields).encode())
    assert manifest.pytorch is None
    assert b"pytorch" not in manifest.to_json()


def test_section_names_files_that_the_manifest_lists(manifest_fields: dict[str, Any]) -> None:
    listed = [*manifest_fields["files"]][:2]
    manifest_fields["pytorch"] = {"config": listed[0], "weights": listed[1]}
    manifest = parse_manifest(json.dumps(manifest_fields).encode())
    assert parse_manifest(manifest.to_json()) == manifest
    manifest_fields["pytorch"]["config"] = "config.json"
    with pytest.raises(BundleInvalid, match=r"does not list; got \['config.json'\]"):
        parse_manifest(json.dumps(manifest_fields).encode())
