from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from tiny_families import write_tiny_family
from tiny_model import HIDDEN, LAYERS, write_tiny_model

from export.bundle_writer import export_bundle
from export.prototype_classifier import embed_texts, read_prototypes
from hetlora.bundle import Bundle, open_bundle
from hetlora.digest import sha256_of_file
from hetlora.errors import ModelNotExportable, RankOutOfRange


def _export(model: Path, out: Path, **given: object) -> Bundle:
    usual: dict[str, object] = {
        "labels": ["snow", "soup"],
        "targets": ["query"],
        "max_rank": 4,
        "max_tokens": 16,
    }
    return export_bundle(str(model), out, **(usual | given))  # type: ignore[arg-type]


def test_bundle_passes_its_own_checks(tiny_bundle: Bundle) -> None:
    opened = open_bundle(tiny_bundle.folder, digest=tiny_bundle.digest)
    assert opened.manifest == tiny_bundle.manifest


def test_manifest_tells_what_was_asked_for(tiny_bundle: Bundle, tiny_model_folder: Path) -> None:
    manifest = tiny_bundle.manifest
    assert manifest.labels == ("weather", "food", "sport")
    assert manifest.adapter.max_rank == 8
    assert [module.name for module in manifest.adapter.modules] == [
        f"encoder.layer.{layer}.attention.self.{target}"
        for layer in range(LAYERS)
        for target in ("query", "value")
    ]
    assert {(module.in_features, module.out_features) for module in manifest.adapter.modules} == {
        (HIDDEN, HIDDEN)
    }
    assert [field.name for field in manifest.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert manifest.base_model.id == "tiny-bert"
    assert manifest.base_model.sha256 == sha256_of_file(tiny_model_folder / "model.safetensors")


def test_same_inputs_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    first = _export(write_tiny_model(tmp_path / "here" / "tiny"), tmp_path / "first")
    second = _export(write_tiny_model(tmp_path / "there" / "tiny"), tmp_path / "second")
    assert first.digest == second.digest


EXPORT = """
import sys
from pathlib import Path
from export.bundle_writer import export_bundle
export_bundle(sys.argv[1], Path(sys.argv[2]), task="text-generation", targets=["all-linear"], max_rank=4,
              max_tokens=16, base="int8", recompute="layer")
"""


def test_processes_that_hash_otherwise_write_the_same_bytes(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    for seed in ("0", "1"):
        subprocess.run(
            [sys.executable, "-c", EXPORT, model, tmp_path / seed],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    assert open_bundle(tmp_path / "0").digest == open_bundle(tmp_path / "1").digest


def test_labels_with_a_describing_text_are_embedded_by_it(tiny_model_folder: Path, tmp_path: Path) -> None:
    described = _export(tiny_model_folder, tmp_path / "a", labels=["cold=snow wind", "warm=sun"])
    plain = _export(tiny_model_folder, tmp_path / "b", labels=["snow wind", "sun"])
    assert described.manifest.labels == ("cold", "warm")
    assert (read_prototypes(described) == read_prototypes(plain)).all()


def test_prototypes_are_the_embeddings_of_the_labels(tiny_bundle: Bundle, tiny_model_folder: Path) -> None:
    from export.source.model_folder import load_model, load_tokenizer, open_model

    encoder = load_model(tiny_model_folder, "text-classification")
    tokenizer = load_tokenizer(open_model(str(tiny_model_folder), None), max_tokens=32)
    expected = embed_texts(encoder, tokenizer, tiny_bundle.manifest.labels)
    assert (read_prototypes(tiny_bundle) == expected).all()


@pytest.mark.parametrize("graph", ["training", "eval", "inference"])
def test_graphs_hold_no_weight_of_their_own(tiny_bundle: Bundle, graph: str) -> None:
    path = tiny_bundle.path(getattr(tiny_bundle.manifest.graphs, graph))
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    outside = [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert len(outside) > 20
    inside = {tensor.name: len(tensor.raw_data) for tensor in tensors if tensor not in outside}
    assert max(inside.values()) <= 8 * 64  # the longest is the table of 64 positions, int64


@pytest.mark.parametrize("graph", ["training", "eval", "inference", "optimizer"])
def test_graphs_carry_no_exporter_leftovers(tiny_bundle: Bundle, graph: str) -> None:
    model = onnx.load(tiny_bundle.path(getattr(tiny_bundle.manifest.graphs, graph)), load_external_data=False)
    assert model.ir_version == tiny_bundle.manifest.versions.ir_version == 9
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_eval_graph_knows_no_pruning(tiny_bundle: Bundle) -> None:
    model = onnx.load(tiny_bundle.path(tiny_bundle.manifest.graphs.eval), load_external_data=False)
    assert not [value.name for value in model.graph.input if "pruning" in value.name]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        pytest.param({"task": "translation"}, ModelNotExportable, "text-classification", id="task"),
        pytest.param({"labels": ["one"]}, ModelNotExportable, "two or more", id="one label"),
        pytest.param({"targets": ["queery"]}, ModelNotExportable, "'query'", id="unknown target"),
        pytest.param({"max_rank": HIDDEN + 1}, RankOutOfRange, f"1 to {HIDDEN}", id="rank above the width"),
        pytest.param({"max_rank": 0}, RankOutOfRange, f"1 to {HIDDEN}", id="rank zero"),
        pytest.param({"scaling": float("nan")}, ModelNotExportable, "scaling is out", id="scaling"),
        pytest.param({"scaling": 1e300}, ModelNotExportable, "up to|to 1e", id="scaling beyond float32"),
        pytest.param({"max_tokens": 10**30}, ModelNotExportable, "max_tokens is out", id="endless texts"),
        pytest.param({"max_tokens": 65}, ModelNotExportable, "up to 64", id="more tokens than positions"),
        pytest.param({"revision": "main"}, ModelNotExportable, "no revision", id="revision of a folder"),
    ],
)
def test_refused_export_leaves_nothing_behind(
    tiny_model_folder: Path, tmp_path: Path, given: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _export(tiny_model_folder, tmp_path / "out" / "bundle", **given)
    assert not [*tmp_path.rglob("*.onnx"), *tmp_path.rglob("*partial*"), *tmp_path.rglob("bundle")]


def test_place_that_is_taken_is_refused_and_kept(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ModelNotExportable, match="is taken"):
        _export(tiny_model_folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_place_that_cannot_be_written_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelNotExportable, match="cannot be written"):
        _export(tiny_model_folder, tmp_path / "file" / "bundle")


def test_empty_folder_may_become_the_bundle(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    bundle = _export(tiny_model_folder, tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle").digest == bundle.digest


def test_export_says_nothing_but_its_progress(
    tiny_model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    _export(tiny_model_folder, tmp_path / "bundle", progress=steps.append)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert steps[0] == "tracing the model"
    assert any("base weights" in step for step in steps)
