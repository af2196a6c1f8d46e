from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.stacks import stacked
from benchmarks.aggregation.commit import largest_difference, largest_difference_of_means, run_commit
from benchmarks.aggregation.crossover import crossover
from benchmarks.aggregation.downlink import run_downlink
from benchmarks.aggregation.measurements import Plan, figures_of
from benchmarks.aggregation.runs import (
    CommitRow,
    FlowerRow,
    StreamRow,
    commit_row,
    flower_row,
    mean_difference,
    stream_row,
)
from benchmarks.aggregation.throughput import run_limits, run_stream, run_throughput
from benchmarks.gemma_adapters import RANKS, gemma_spec, write_updates
from benchmarks.harness import Measured, Pair
from benchmarks.one_core import run_on_one_core
from benchmarks.peers.dense_products import Numpy, decomposed, factors_of, mean_products
from hetlora.tensors import adapter_from_bytes, factor_keys


def told(**figures: Any) -> Measured:
    return Measured(1.0, 300, json.dumps(figures))


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two updates of rank 1."""
    folder = tmp_path_factory.mktemp("bench") / "updates"
    write_updates(folder, [1, 1], "random", max_rank=1, seed=0)
    return folder


def test_model_has_the_shape_of_gemma() -> None:
    spec = gemma_spec(32)
    assert len(spec.modules) == 72
    # 18 x ((640 + 1024) + 2 x (640 + 256) + (1024 + 640)) = 18 x 5,120
    assert spec.parameters_per_rank == 92_160


def test_trained_updates_stay_near_each_other_and_random_ones_do_not(tmp_path: Path) -> None:
    distances = {}
    for kind in ("trained", "random"):
        paths = write_updates(tmp_path / kind, [2, 2], kind, max_rank=2, seed=0)
        first, second = (stacked(adapter_from_bytes(path.read_bytes(), gemma_spec(2))) for path in paths)
        assert sum(own.sum() for own in squared_norms(first)) > 0
        distances[kind] = np.linalg.norm(first.values - second.values) / np.linalg.norm(first.values)
    # Moves of a tenth, in two directions: sqrt(2) / 10. Independent numbers: sqrt(2).
    assert distances["trained"] == pytest.approx(0.14, abs=0.02)
    assert distances["random"] == pytest.approx(1.41, abs=0.05)


def test_throughput_leaves_the_mean_weighted_by_examples(updates: Path, tmp_path: Path) -> None:
    rules = ["hetlora", "zero_pad"]
    config = {"updates": updates, "count": 3, "rank": 1, "passes": 1, "rules": rules, "out": tmp_path}
    found = run_throughput(config)
    assert found["rules"].keys() == {"hetlora", "zero_pad"}
    assert all(one["seconds"] > 0 for one in found["rules"].values())
    first, second = (load_file(path) for path in sorted(updates.iterdir()))
    # References 0, 1, 2 with 1, 2, 3 examples; the third is the first update again.
    expected = {name: (4 * first[name] + 2 * second[name]) / 6 for name in first}
    assert mean_difference(expected, load_file(tmp_path / "zero_pad.safetensors")) < 1e-6


def test_stream_reads_each_reference_once(updates: Path) -> None:
    config = {"updates": updates, "ranks": [1], "run_rank": 1, "rule": "hetlora"}
    config |= {"count": 40, "engine": "local", "workers": 1, "hashed": True}
    found = run_stream(config)
    assert found["loaded_bytes"] == 20 * sum(path.stat().st_size for path in updates.iterdir())
    assert len(found["resident_bytes"]) == 20  # after every second one


def test_limits_are_of_reading_hashing_and_files(updates: Path) -> None:
    limits = run_limits({"updates": updates, "passes": 1})
    assert limits.keys() == {f"{name}_bytes_per_second" for name in ("memory", "sha256", "files")}
    assert all(rate > 0 for rate in limits.values())


def test_version_is_cut_once_for_each_rank() -> None:
    found = run_downlink({"ranks": 2})
    assert found["stored_objects"] == 4  # of two versions: one was timed, and one was watched for memory
    small, large = found["adapter_bytes"]
    assert large - small == pytest.approx(4 * 92_160, abs=200)  # and what the header's numbers take


def test_commit_is_that_of_dense_products(tmp_path: Path) -> None:
    write_updates(tmp_path / "updates", [1, 2], "random", max_rank=32, seed=0)
    run_commit({"rule": "flexlora", "updates": tmp_path / "updates", "ranks": [1, 2], "out": tmp_path})
    clients = [factors_of(path, "float64") for path in sorted((tmp_path / "updates").iterdir())]
    module = "model.layers.0.self_attn.k_proj"
    few = [{module: client[module]} for client in clients]
    means = mean_products(few, np.array([1, 2]) / 3, Numpy())
    left, values, right = decomposed(means, [4], Numpy())[4][module]
    ours = load_file(tmp_path / "4.safetensors")
    assert largest_difference(ours, {f"{module}.left": left * values, f"{module}.right": right}, 4) < 1e-6


def test_merged_product_is_the_dense_mean_where_its_rank_holds_all(tmp_path: Path) -> None:
    write_updates(tmp_path / "updates", [1, 2], "random", max_rank=32, seed=0)
    run_commit({"rule": "flora", "updates": tmp_path / "updates", "ranks": [1, 2], "out": tmp_path})
    clients = [factors_of(path, "float64") for path in sorted((tmp_path / "updates").iterdir())]
    means = mean_products(clients, np.array([1, 2]) / 3, Numpy())
    ours = load_file(tmp_path / "32.safetensors")
    assert largest_difference_of_means(ours, {f"{name}.mean": mean for name, mean in means.items()}) < 1e-6
    doubled = {f"{name}.mean": 2 * mean for name, mean in means.items()}
    assert largest_difference_of_means(ours, doubled) == pytest.approx(0.5)


def test_both_ways_to_keep_products_are_timed_and_agree_where_a_sketch_holds_all(tmp_path: Path) -> None:
    write_updates(tmp_path / "updates", [1, 2], "decaying", max_rank=32, seed=0)
    row = crossover(tmp_path, tmp_path / "updates", [1, 2], 3)
    # References 0, 1, 2 have ranks 1, 2, 1: less than the width of the sketch.
    assert (row.updates, row.rank_total, row.chosen) == (3, 4, "stack")
    assert row.difference < 1e-5
    assert min(row.stack_seconds, row.sketch_seconds) > 0


def test_difference_is_of_products_and_the_largest_one() -> None:
    key_A, key_B = factor_keys("m")
    ours = {key_A: np.array([[2.0, 0.0]]), key_B: np.array([[1.0], [1.0]])}
    # P = [[2, 0], [2, 0]], Q = [[2, 0], [0, 0]]: ||P - Q|| = 2 = ||Q||; the second rank of Q is left out.
    dense = {"m.left": np.array([[1.0, 5.0], [0.0, 5.0]]), "m.right": np.array([[2.0, 0.0], [1.0, 1.0]])}
    assert largest_difference(ours, dense, 1) == 1.0


def test_flower_row_is_the_median_of_paired_ratios() -> None:
    pairs = [
        Pair(told(rules={"zero_pad": {"seconds": ours, "cpu_seconds": 1}}), told(seconds=peer, cpu_seconds=5))
        for ours, peer in ((1, 6), (2, 14), (4, 20))
    ]
    # 6 / 1, 14 / 2, 20 / 4 = 6, 7, 5; medians of the rates: 8 / 2 and 8 / 14.
    assert flower_row("zero_pad", 8, 8, pairs, 1e-7) == FlowerRow("zero_pad", 8, 4.0, 0.6, 6.0, 5.0, 1e-7)


def test_commit_row_is_the_median_of_paired_ratios() -> None:
    pairs = [
        Pair(told(seconds=1, cpu_seconds=1), told(seconds=20, cpu_seconds=10, library="torch")),
        Pair(told(seconds=2, cpu_seconds=1), told(seconds=60, cpu_seconds=20, library="torch")),
    ]
    row = commit_row("flexlora", "random", pairs, 1e-8, 1e-5)
    assert (row.ratio, row.cpu_ratio) == (25.0, 15.0)
    assert (row.peer_library, row.difference, row.peer_difference) == ("torch", 1e-8, 1e-5)


def test_stream_row_counts_the_bytes_of_what_was_read(tmp_path: Path) -> None:
    for number, size in enumerate((10, 30)):
        (tmp_path / f"{number}.safetensors").write_bytes(bytes(size))
    config = {"count": 3, "engine": "local", "workers": 1, "hashed": False}
    row = stream_row(config, tmp_path, told(seconds=2.0, resident_bytes=[7]))
    # 10 + 30 + 10 bytes in 2 seconds.
    assert (row.adapters_per_second, row.bytes_per_second) == (1.5, 25)
    assert (row.peak_rss_bytes, row.resident_bytes) == (300, (7,))


def stream_of(count: int, rate: float, engine: str = "local", *, hashed: bool = False) -> StreamRow:
    workers = 2 if engine == "ray" else 1
    return StreamRow(count, engine, workers, hashed, rate, round(10 * rate), 300 + count, (1,))


def figures(*streams: StreamRow) -> dict[str, Any]:
    flower = [
        FlowerRow(rule, rank, 900, 150, ratio, ratio, None)
        for rule, rank, ratio in (("hetlora", 8, 6.5), ("zero_pad", 8, 9.0), ("zero_pad", 4, 20.0))
    ]
    commits = [
        CommitRow("flexlora", "random", 1, 25, 25, 25, "torch", 0, 0),
        CommitRow("flora", "random", 1, 3, 3, 3, "torch", 0, 0),
        CommitRow("flexlora", "trained", 1, 50, 50, 50, "torch", 0, 0),
    ]
    return figures_of(Plan(), flower, commits, [], streams, {"memory_bytes_per_second": 20_000}, {})


def test_headlines_are_those_of_their_rows() -> None:
    found = figures(stream_of(10, 99), stream_of(1000, 200), stream_of(20, 150, hashed=True))
    assert (found["ratio_to_flower"], found["ratio_to_flower_by_hetlora"]) == (9.0, 6.5)
    assert found["svd_ratio_to_dense"] == 25
    assert found["svd_ratio_to_dense_by_kind"] == {"random": 25, "trained": 50}
    assert found["flora_ratio_to_dense_by_kind"] == {"random": 3}
    assert (found["adapters_per_second"], found["adapters_per_second_with_digests"]) == (200, 150)
    assert found["peak_rss_bytes_by_count"] == {"10": 310, "1000": 1300}
    # 2,000 bytes a second of 20,000.
    assert found["fraction_of_limit"] == 0.1
    assert found["ray_seconds_for_longest_stream"] is None
    json.dumps(found)


def test_ray_is_extrapolated_to_the_longest_stream() -> None:
    found = figures(stream_of(1000, 200), stream_of(20, 150, hashed=True), stream_of(50, 400, "ray"))
    assert found["ray_seconds_for_longest_stream"] == 2.5  # 1,000 at 400 a second


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process to a core")
def test_process_on_one_core_has_one_core_and_one_thread() -> None:
    code = "import json, os; print(json.dumps([len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS']]))"
    assert json.loads(run_on_one_core([sys.executable, "-c", code]).output) == [1, "1"]


def test_quick_plan_measures_the_headline_rank() -> None:
    plan = Plan(adapters=10**6).quick()
    assert 8 in plan.ranks
    assert max(plan.adapters, *plan.memory, plan.parallel) <= 512
    assert set(plan.ranks) <= set(RANKS)
