"""The cost of a step against sums made by hand; the benchmark `forecast` holds it against measured steps."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper
from parity import export_family
from tiny_families import VOCABULARY, write_tiny_family

from export.cost.cost_model import cost_model, peaks
from export.cost.liveness import live_while_running
from export.cost.tensor_sizes import TERMS, Sized
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.bundle import Bundle
from hetlora.cost import CostModel, StepCost, StepSize


def test_products_are_counted_where_the_step_takes_them(tiny_bundle: Bundle) -> None:
    flops = tiny_bundle.manifest.cost_model.flops
    # Two layers of four 32 x 32 and two 32 x 64 matrices, 8192 numbers each; LoRA on query and value.
    # Forward 2 * 16384. The second layer passes gradients through all its matrices, 2 * 8192; the first
    # through those above its attention, 2 * (1024 + 4096). Pooling takes 2 * 32 there and back.
    assert flops.per_token == 32768 + 16384 + 10240 + 128
    # Attention: scores and values, 2 * 32 a pair each, and two gradients of both; nobody needs that of the
    # first layer's keys. 4 * 64 forward, 8 * 64 - 64 backward.
    assert flops.per_token_pair == 256 + 448
    # Four modules, 32 in and 32 out: forward 2 * 64; backward B, A and what lies between, 3 * 64; and the
    # gradient of their input, 64, in the second layer.
    assert flops.per_token_per_rank == 4 * (128 + 192) + 2 * 64
    # Three labels against 32 features, there and back.
    assert flops.per_text == 2 * (2 * 3 * 32)


def test_weights_of_an_adapter_and_of_the_base_are_counted(tiny_bundle: Bundle) -> None:
    cost = tiny_bundle.manifest.cost_model
    assert cost.adapter_bytes_per_rank == 4 * 4 * (32 + 32)
    weights_bytes = tiny_bundle.path(tiny_bundle.manifest.graphs.base_weights).stat().st_size
    # All matrices are read whole, with biases and norms some more; of the table of tokens a few rows are.
    assert 4 * 16384 < cost.base_weight_bytes < weights_bytes


def test_fewer_trained_layers_take_less_time_and_memory(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    costs = [
        export_family("llama", model, tmp_path / str(layers), last_layers=layers).manifest.cost_model
        for layers in (1, None)
    ]
    step = costs[0].step(batch=2, tokens=24, rank=4)
    assert costs[0].flops.at(step) < costs[1].flops.at(step)
    assert costs[0].peak_live_bytes(step) < costs[1].peak_live_bytes(step)


def test_activations_made_again_take_more_operations(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    plain = export_family("llama", model, tmp_path / "plain").manifest.cost_model
    again = export_family("llama", model, tmp_path / "again", recompute="layer").manifest.cost_model
    assert again.flops.per_token > plain.flops.per_token


def test_a_tensor_is_alive_from_its_maker_to_its_last_reader() -> None:
    # a = x + x; b = a * a; c = reshape b; d = c + c. Ten float32 a token each; c lies in the memory of b.
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["a"]),
            helper.make_node("Mul", ["a", "a"], ["b"]),
            helper.make_node("Reshape", ["b", "shape"], ["c"]),
            helper.make_node("Add", ["c", "c"], ["d"]),
        ],
        "graph",
        [],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, ["tokens", 10])],
    )
    sizes = {name: Sized(("tokens", 10), TensorProto.FLOAT) for name in "xabcd"}
    per_token = TERMS.index("per_token")
    alive = [moment[per_token] for moment in live_while_running(graph, sizes)]
    assert alive == [40, 80, 40, 80]  # a; a and b; b; b and d
    spec = AdapterSpec((ModuleSpec("q", 4, 4),), scaling=1.0, max_rank=2)
    cost = cost_model(helper.make_model(graph), sizes, spec, most_chunk_rows=0)
    assert cost.written_bytes == StepCost(per_token=3 * 40)  # a, b and d: c writes nothing
    assert cost.live_bytes == (StepCost(per_token=80),)
    assert (cost.graph_nodes, cost.adapter_bytes_per_rank) == (4, 4 * 8)


@given(
    live=arrays(np.float64, (9, len(TERMS)), elements=st.integers(0, 10**6).map(float)),
    batch=st.sampled_from([1, 4, 64]),
    tokens=st.sampled_from([16, 256, 4096]),
)
def test_moments_that_are_kept_hold_the_peak_of_any_step(
    live: NDArray[np.float64], batch: int, tokens: int
) -> None:
    steps = [
        StepSize.of(batch=rows, tokens=length, rank=rank, most_chunk_rows=7)
        for rows, length, rank in product((1, 4, 64), (16, 256, 4096), (1, 8))
    ]
    kept = peaks(live, steps)
    assert {tuple(row) for row in kept} <= {tuple(row) for row in live}
    step = StepSize.of(batch=batch, tokens=tokens, rank=8, most_chunk_rows=7)
    sizes = [1, batch, step.rows, step.rows * tokens, 8, step.rows * 8, step.chunk_rows]
    assert (kept @ sizes).max() >= (live @ sizes).max() / 1.01 - 1


@pytest.mark.parametrize(
    ("rows", "most", "chunk_rows"),
    [(10, 4, 4), (15, 8, 8), (9, 8, 5), (5, 100, 5), (10, 0, 0)],
    ids=["3 chunks", "2 chunks, one padded", "2 chunks and not 8 + 1", "one chunk", "no chunks"],
)
def test_chunks_are_as_few_as_can_be_and_of_one_size(rows: int, most: int, chunk_rows: int) -> None:
    assert StepSize.of(batch=1, tokens=rows, rank=1, most_chunk_rows=most).chunk_rows == chunk_rows


def test_terms_add_up() -> None:
    cost = StepCost(fixed=1, per_text=1, per_token=1, per_token_pair=1, per_rank=1, per_token_per_rank=1)
    # 2 texts of 3 tokens at rank 4: 1 + 2 + 6 + 18 + 4 + 24.
    assert cost.at(StepSize(batch=2, tokens=3, rank=4, chunk_rows=9)) == 55
    assert StepCost(per_chunk_row=2).at(StepSize(2, 3, 4, chunk_rows=9)) == 18


def test_logits_of_a_language_model_are_counted_by_the_chunk(tmp_path: Path) -> None:
    model = write_tiny_family(tmp_path / "model", "llama")
    cost: CostModel = export_family("llama", model, tmp_path / "bundle").manifest.cost_model
    vocabulary = len(VOCABULARY)
    assert cost.most_chunk_rows == 8 * 2**20 // vocabulary  # 32 MiB of float32
    # Of each row of a chunk: logits and softmax, float32, at least; at most four of their kind.
    rows = [moment.per_chunk_row for moment in cost.live_bytes if moment.per_chunk_row]
    assert rows
    assert all(2 * 4 * vocabulary <= row <= 4 * 4 * vocabulary + 4 * 4 * 32 for row in rows)
    # Outside the chunks nothing has a row of logits.
    assert cost.flops.per_chunk_row == cost.written_bytes.per_chunk_row == 0
