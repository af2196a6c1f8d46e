"""Which file of a model folder a weight is read from, and under which of its names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from export.source.weight_files import WeightFiles, weight_paths
from hetlora.errors import ModelNotExportable


def _save(path: Path, **weights: float) -> Path:
    save_file({name: np.full((2, 3), value, np.float32) for name, value in weights.items()}, path)
    return path


def _read(files: list[Path], name: str, prefix: str = "bert") -> NDArray[np.float32]:
    return np.concatenate(list(WeightFiles(files, prefix).read(name)))


def test_whole_file_comes_before_others_of_like_name(tmp_path: Path) -> None:
    whole = _save(tmp_path / "model.safetensors", w=1)
    _save(tmp_path / "model_old.safetensors", w=0)
    assert weight_paths(tmp_path) == [whole]


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    shards = [_save(tmp_path / f"model-{part}.safetensors", **{f"w{part}": part}) for part in (1, 2)]
    _save(tmp_path / "model-3.safetensors", w1=9)
    places = {f"w{part}": f"model-{part}.safetensors" for part in (1, 2)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert weight_paths(tmp_path) == shards
    assert (_read(shards, "w2") == 2).all()


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_index_that_cannot_be_read_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelNotExportable, match=r"index\.json of the model cannot be read"):
        weight_paths(tmp_path)


def test_shard_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    index = {"weight_map": {"w": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotExportable, match=r"model-1\.safetensors is no whole"):
        WeightFiles(weight_paths(tmp_path), "")


@pytest.mark.parametrize("key", ["norm.weight", "bert.norm.weight", "norm.gamma", "bert.norm.gamma"])
@pytest.mark.parametrize("name", ["norm.weight", "bert.norm.weight"])
def test_weight_is_found_with_and_without_prefix_and_by_its_old_name(
    tmp_path: Path, key: str, name: str
) -> None:
    assert (_read([_save(tmp_path / "model.safetensors", **{key: 5})], name) == 5).all()


def test_present_name_comes_before_an_old_one(tmp_path: Path) -> None:
    path = _save(tmp_path / "model.safetensors", **{"norm.gamma": 1, "bert.norm.weight": 2})
    assert (_read([path], "norm.weight") == 2).all()
