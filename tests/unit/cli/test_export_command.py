"""`hetlora export` from its options to a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hetlora.bundle import open_bundle
from hetlora.cli.main import app
from hetlora.errors import ModelNotExportable


def export(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_families import write_tiny_family

    return write_tiny_family(tmp_path_factory.mktemp("models") / "tiny-llama", "llama")


def test_help_teaches_with_a_classifier_and_a_causal_language_model() -> None:
    shown = export("--help").stdout
    assert "--labels" in shown
    assert "--task text-generation --base int8" in " ".join(shown.split())


def test_tested_families_are_listed_without_a_model() -> None:
    (listed,) = (json.loads(line) for line in export("--list-models", "--json").stdout.splitlines())
    gpt2 = next(family for family in listed["items"] if family["architecture"] == "gpt2")
    assert gpt2["task"] == "text-generation"
    assert gpt2["targets"] == ["c_attn", "c_fc"]
    table = export("--list-models").stdout
    assert all(family["architecture"] in table for family in listed["items"])


@pytest.mark.parametrize(("given", "missing"), [([], "MODEL"), (["model"], "--out")])
def test_call_without_a_model_or_a_place_is_wrong_usage(given: list[str], missing: str) -> None:
    done = export(*given)
    assert done.exit_code == 2
    assert missing in done.stderr


def test_causal_language_model_is_exported_as_asked(tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = export(
        *(str(tiny_llama), "--task", "text-generation", "--out", str(out), "--json"),
        *("--base", "int8", "--recompute", "layer", "--last-layers", "1"),
        *("--max-rank", "4", "--max-tokens", "16"),
    )
    assert done.exit_code == 0, done.output
    manifest = open_bundle(out).manifest
    assert (manifest.task, manifest.base_precision, manifest.recompute) == (
        "text-generation",
        "int8",
        "layer",
    )
    # all-linear by default: the seven of a Llama block, in the last of two blocks
    assert [module.name.removeprefix("model.layers.1.") for module in manifest.adapter.modules] == [
        *("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"),
        *("self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"),
    ]
    assert json.loads(done.stdout)["modules"] == 7


def test_download_of_each_runtime_is_told(tiny_llama: Path, tmp_path: Path) -> None:
    arguments = (*("--task", "text-generation", "--max-rank", "4"), "--runtime", "android,web")
    done = export(str(tiny_llama), "--out", str(tmp_path / "bundle"), "--json", *arguments)
    assert done.exit_code == 0, done.output
    files = open_bundle(tmp_path / "bundle").manifest.files
    names = ("gradients.onnx", "eval.onnx", "base.bin", "tokenizer.json")
    told = json.loads(done.stdout)["download_bytes"]
    assert told.keys() == {"onnx", "android", "web"}
    assert told["web"] == told["android"] == sum(files[name].size_bytes for name in names)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(["--task", "translation"], "one of text-classification", id="task"),
        pytest.param(["--labels", "a,a"], "two or more different names", id="labels twice"),
        pytest.param(["--task", "text-generation", "--labels", "a,b"], "takes no labels", id="labels"),
        pytest.param(["--labels", "a,b", "--base", "int3"], "float32, float16", id="base"),
        pytest.param(["--labels", "a,b", "--recompute", "all"], "none, selective, layer", id="recompute"),
        pytest.param(
            ["--labels", "a,b", "--runtime", "tflite"],
            "onnx, executorch, pytorch, android, web",
            id="runtime",
        ),
    ],
)
def test_choice_that_there_is_not_is_refused(
    tiny_llama: Path, tmp_path: Path, given: list[str], words: str
) -> None:
    done = export(str(tiny_llama), "--out", str(tmp_path / "bundle"), *given)
    assert isinstance(done.exception, ModelNotExportable)
    assert words in str(done.exception)
    assert not [*tmp_path.iterdir()]


def test_classifier_without_labels_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    done = export(str(tiny_llama), "--out", str(tmp_path / "bundle"))
    assert isinstance(done.exception, ModelNotExportable)
    assert "text-classification needs labels; expected two or more names" in str(done.exception)
