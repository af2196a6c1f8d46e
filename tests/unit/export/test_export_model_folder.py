from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from export.bundle_writer import export_bundle
from export.source.model_folder import load_tokenizer, open_model
from hetlora.bundle import Bundle
from hetlora.errors import ModelNotExportable


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def _export(model: str | Path, out: Path) -> Bundle:
    return export_bundle(
        str(model), out, labels=["snow", "soup"], targets=["query"], max_rank=4, max_tokens=16
    )


def _refusal(model: str | Path, out: Path) -> str:
    with pytest.raises(ModelNotExportable) as caught:
        _export(model, out)
    assert not out.exists()
    return str(caught.value)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "no model" in _refusal(tmp_path / "nothing", tmp_path / "bundle")


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    assert "config.json" in _refusal(tmp_path, tmp_path / "bundle")


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "safe to load" in _refusal(model, tmp_path / "bundle")


def test_broken_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "cannot be loaded" in _refusal(model, tmp_path / "bundle")


def test_unknown_architecture_is_refused(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    assert "cannot be read" in _refusal(model, tmp_path / "bundle")


def test_code_that_comes_with_a_model_is_not_run(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    remote = {"model_type": "custom", "auto_map": {"AutoModel": "code.Model", "AutoConfig": "code.Config"}}
    (model / "config.json").write_text(json.dumps(config | remote))
    (model / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "never run" in _refusal(model, tmp_path / "bundle")
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_refused_and_named(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    gone = "encoder.layer.1.output.dense.weight"
    save_file({k: v for k, v in weights.items() if k != gone}, model / "model.safetensors", {"format": "pt"})
    assert gone in _refusal(model, tmp_path / "bundle")


def test_model_without_pooler_is_accepted(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, model / "model.safetensors", {"format": "pt"})
    _export(model, tmp_path / "bundle")


def test_missing_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (model / name).unlink()
    assert "tokenizer" in _refusal(model, tmp_path / "bundle")


def test_tokenizer_cuts_and_pads_as_devices_need(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(open_model(str(model), None), max_tokens=5)
    short, long = tokenizer.encode_batch(["snow", "snow rain sun wind bread soup"])
    # [CLS] snow [SEP] and padding to the longest; [CLS], three words, [SEP]
    assert short.attention_mask == [1, 1, 1, 0, 0]
    assert len(long.ids) == 5


def test_hub_id_is_read_from_the_cache_and_pinned_to_its_commit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(model, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    info = _export("someone/tiny", tmp_path / "bundle").manifest.base_model
    assert (info.id, info.revision) == ("someone/tiny", commit)
