from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.bench_export import export_row
from benchmarks.harness import Measured
from benchmarks.large_llama import LLAMA_1B, write_large_llama
from benchmarks.llama import LlamaSize
from export.source.weight_files import weight_paths

TINY = LlamaSize(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    vocab_size=11,
)


def test_row_tells_what_the_export_held_beside_the_libraries(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    for path, size in ((model / "a.safetensors", 5), (model / "b.safetensors", 6), (out / "base.bin", 22)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
    told = {"seconds": 1.234, "libraries_bytes": 300, "peak_held_bytes": 420}
    row = export_row("float32", model, out, Measured(2.0, 999, json.dumps(told)))
    assert (row.export_bytes, row.peak_resident_bytes) == (120, 999)
    assert (row.weights_bytes, row.base_bytes, row.graphs_bytes) == (11, 22, 0)


def test_large_model_is_one_that_transformers_can_load(tmp_path: Path) -> None:
    folder = write_large_llama(tmp_path / "model", TINY, seed=0, shard_bytes=1000)
    assert len(weight_paths(folder)) > 1
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # 11 * 16 embedding, two layers of (2 * 16 + 2 * 8) * 16 + 3 * 16 * 32 + 2 * 16, and 16: tied to the head.
    assert model.num_parameters() == 11 * 16 + 2 * (48 * 16 + 3 * 16 * 32 + 32) + 16
    weights = torch.cat([parameter.flatten() for parameter in model.parameters()])
    # The exponent of 1/64 with any fraction, of either sign.
    assert 1 / 64 <= weights.abs().min() <= weights.abs().max() < 1 / 32
    assert 0 < (weights < 0).float().mean() < 1


def test_same_seed_writes_the_same_weights(tmp_path: Path) -> None:
    one, other = (write_large_llama(tmp_path / name, TINY, seed=3) for name in ("one", "other"))
    assert [path.read_bytes() for path in weight_paths(one)] == [p.read_bytes() for p in weight_paths(other)]


def test_large_model_has_a_billion_parameters() -> None:
    size = LLAMA_1B
    keys = size.hidden_size * size.num_key_value_heads // size.num_attention_heads
    layer = 2 * size.hidden_size * (size.hidden_size + keys) + 3 * size.hidden_size * size.intermediate_size
    matrices = size.num_hidden_layers * layer + size.vocab_size * size.hidden_size
    assert matrices == pytest.approx(1.2357e9, rel=1e-4)
