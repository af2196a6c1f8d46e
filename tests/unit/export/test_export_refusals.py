"""What cannot become a bundle: a message that says what and where, and nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from parity import export_family
from safetensors.numpy import load_file, save_file
from tiny_families import VOCABULARY, write_tiny_family
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from export.quiet import quiet_libraries
from hetlora.bundle import open_bundle
from hetlora.errors import ModelNotExportable, RankOutOfRange


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_family(tmp_path / "model", "smollm")


def _refusal(model: Path, out: Path, **choices: object) -> str:
    with pytest.raises(ModelNotExportable) as caught:
        export_family("smollm", model, out, **choices)
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]
    return str(caught.value)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"targets": ["q_prjo"]}, "near matches ['q_proj'"),
        ({"targets": ["Q_PROJ"]}, "near matches ['q_proj'"),
        ({"targets": ["all_linear"]}, "near matches ['all-linear'"),
        ({"targets": ["xxxxxxxx"]}, "one of ['down_proj', 'gate_proj', 'k_proj'"),
        ({"targets": ["lm_head"]}, "lm_head, which reads model.embed_tokens.weight"),
        ({"targets": ["*.q_proj"], "last_layers": 3}, "got 3; expected 1 to 2"),
        ({"targets": ["*.q_proj"], "trained_layers": 3}, "got 3; expected 1 to 2"),
        ({"trained_layers": 1, "runtimes": ["onnx", "pytorch"]}, "trained_layers are of ONNX's graphs"),
        ({"labels": ["a", "b"]}, "text-generation takes no labels"),
        ({"base": "int2"}, "unknown precision of the base weights; got 'int2'"),
        ({"recompute": "some"}, "unknown way of recomputing activations"),
        ({"runtimes": ["tflite"]}, "unknown runtime; got 'tflite'"),
        ({"runtimes": ["onnx", "executorch"], "base": "int8"}, "for ExecuTorch; got 'int8'"),
        ({"runtimes": ["pytorch"], "base": "int8"}, "for PyTorch; got 'int8'; expected float32"),
        (
            {"runtimes": ["executorch"], "task": "text2text-generation"},
            "no task for ExecuTorch; got 'text2text-generation'; expected one without a decoder of its own",
        ),
        ({"task": "translation"}, "unknown task; got 'translation'"),
        ({"task": "text2text-generation"}, "is not known for text2text-generation"),
        ({"max_tokens": 65}, "got 65; expected up to 64"),
    ],
)
def test_choice_that_cannot_be_is_named(
    model: Path, tmp_path: Path, choices: dict[str, object], words: str
) -> None:
    assert words in _refusal(model, tmp_path / "bundle", **choices)


def test_rank_above_the_narrowest_target_is_refused(model: Path, tmp_path: Path) -> None:
    # Two heads of 8 for keys: 16 out.
    with pytest.raises(
        RankOutOfRange, match=r"got 17; expected 1 to 16, the width of model\.layers\.0\.self_attn\.k_proj"
    ):
        export_family("smollm", model, tmp_path / "bundle", targets=["k_proj"], max_rank=17)


def test_untied_output_layer_cannot_be_a_target(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "qwen3")
    with pytest.raises(ModelNotExportable, match="made chunk by chunk; got lm_head"):
        export_family("qwen3", model, tmp_path / "bundle", targets=["lm_head"])


def _change(model: Path, name: str, value: np.ndarray | None) -> None:
    weights = load_file(model / "model.safetensors")
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    save_file(weights, model / "model.safetensors", {"format": "pt"})


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, f"1 absent, such as {NAME}"),
        (np.zeros((2, 3), np.float32), f"{NAME} is not what the model's configuration says; got F32 (2, 3)"),
        (np.zeros((64, 32), np.int8), f"{NAME} is not what the model's configuration says; got I8"),
        (np.full((64, 32), np.nan, np.float32), f"{NAME} holds values that are not finite"),
    ],
)
def test_weight_that_is_wrong_is_named(
    model: Path, tmp_path: Path, value: np.ndarray | None, words: str
) -> None:
    _change(model, NAME, value)
    assert words in _refusal(model, tmp_path / "bundle")


@pytest.mark.parametrize("keep", [0, 7, 0.5])
def test_torn_weights_file_is_refused(model: Path, tmp_path: Path, keep: float) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    assert "no whole safetensors file" in _refusal(model, tmp_path / "bundle")


def test_configuration_that_does_not_add_up_is_refused(model: Path, tmp_path: Path) -> None:
    path = model / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": "wide"'))
    assert "bundle" not in _refusal(model, tmp_path / "bundle")


EXPORT = """
import sys
from pathlib import Path
from export.bundle_writer import export_bundle
model, out = sys.argv[1:]
try:
    export_bundle(model, Path(out), task="text-generation", targets=["q_proj"], max_rank=4, max_tokens=16,
                  progress=lambda step: print(step, flush=True))
except Exception as error:
    print(type(error).__name__, error)
"""


def _start(model: Path, out: Path, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if limit_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-c", EXPORT, str(model), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit,
    )


@pytest.mark.slow
@pytest.mark.parametrize("limit_bytes", [500, 60_000], ids=["for the tokenizer", "for the weights"])
def test_full_disk_is_told_and_leaves_nothing(model: Path, tmp_path: Path, limit_bytes: int) -> None:
    with _start(model, tmp_path / "bundle", limit_bytes=limit_bytes) as process:
        said, _ = process.communicate(timeout=120)
    assert "ModelNotExportable" in said
    assert "cannot be written" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["tracing the model", "building graphs", "writing the graphs"])
def test_killed_export_leaves_nothing_that_looks_whole(model: Path, tmp_path: Path, step: str) -> None:
    out = tmp_path / "bundle"
    with _start(model, out) as process:
        assert process.stdout is not None
        assert any(line.startswith(step) for line in process.stdout)
        time.sleep(0.05)
        process.kill()
    if out.exists():  # it was done before the signal came
        open_bundle(out)
        return
    left = [path.name for path in tmp_path.iterdir() if path.name != "model"]
    assert all(name.startswith(".bundle.") for name in left)
    assert not [*tmp_path.rglob("manifest.json")]
    open_bundle(export_family("smollm", model, out).folder)


def test_model_that_chooses_experts_is_refused_by_operator_and_module(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        eos_token_id=3,
    )
    model = write_tiny_family(tmp_path / "model", "qwen3")
    with quiet_libraries():
        Qwen3MoeForCausalLM(config).save_pretrained(model)
    with pytest.raises(ModelNotExportable, match=r"operator NonZero of module model\.layers\.0\.mlp"):
        export_family("qwen3", model, tmp_path / "bundle", targets=["q_proj"])
