from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.harness import run_measured
from benchmarks.llama import LlamaSize, export_llama, write_llama
from benchmarks.step_comparison import ATTENTIONS, compare
from benchmarks.step_runs import Plan, our_command, write_inputs
from benchmarks.step_shapes import Shape
from hetlora.bundle import Bundle

pytestmark = pytest.mark.slow

TINY = LlamaSize(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=96,
)
PLAN = Plan(rank=4, warm_up=1, steps=2, pairs=1, seed=0)
# Imports of the script end with it, so it is run inside an interpreter that can tell them afterwards.
LOADED = """
import json, runpy, sys
script, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
print(json.dumps(sorted({"torch", "transformers", "onnxruntime"} & sys.modules.keys())))
"""


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("models") / "tiny-llama", TINY, seed=0)


@pytest.fixture(scope="module")
def llama_bundle(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "tiny-llama"
    return export_llama(tiny_llama, out, "float32", "none", max_rank=8, max_tokens=32)


def test_both_sides_take_the_same_steps(tiny_llama: Path, llama_bundle: Bundle, tmp_path: Path) -> None:
    # This environment has the peer's packages too; the benchmark proper gives the peer one of its own.
    (row,) = compare([llama_bundle], tiny_llama, Shape(2, 16), 1, PLAN, tmp_path, peer=Path(sys.executable))
    assert (row.base, row.recompute, row.shape, row.threads) == ("float32", "none", "2x16", 1)
    assert row.runs.keys() == {"ours", *ATTENTIONS}
    ours = row.runs["ours"][0]
    for attention in ATTENTIONS:
        peer = row.runs[attention][0]
        assert ours.first_loss == pytest.approx(peer.first_loss, rel=1e-6)
        assert ours.last_loss == pytest.approx(peer.last_loss, rel=1e-5)
    assert ours.last_loss != pytest.approx(ours.first_loss, rel=1e-3)
    assert ours.seconds > 0
    assert row.memory_ratio > 0


def test_our_process_loads_neither_torch_nor_transformers(llama_bundle: Bundle, tmp_path: Path) -> None:
    shared = write_inputs(llama_bundle.manifest, Shape(1, 8), 1, PLAN, tmp_path)
    python, *script_and_config = our_command(shared, llama_bundle, tmp_path)
    told = run_measured([python, "-c", LOADED, *script_and_config]).output
    assert json.loads(told.splitlines()[-1]) == ["onnxruntime"]
