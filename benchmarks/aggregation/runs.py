"""What processes are started with, and the figures that two of them make together."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file

from benchmarks.aggregation.commit import largest_difference, largest_difference_of_means
from benchmarks.gemma_adapters import RANKS, Kind
from benchmarks.harness import Measured, Pair, median_ratio, paired, run_measured
from benchmarks.one_core import run_on_one_core
from hetlora.tensors import factor_keys

FLOWER: Final = Path(__file__).parent.parent / "peers" / "flower_aggregation.py"
DENSE: Final = Path(__file__).parent.parent / "peers" / "dense_products.py"
RULES: Final = ("hetlora", "zero_pad")


@dataclass(frozen=True, slots=True)
class FlowerRow:
    """One rule at one rank beside Flower's weighted mean of the same updates, one core each.

    `ratio` is Flower's seconds over ours, `cpu_ratio` the same in processor time. `difference` is the largest
    one between both means, over the largest number; None where the rule means another mean than Flower's.
    """

    rule: str
    rank: int
    adapters_per_second: float
    peer_adapters_per_second: float
    ratio: float
    cpu_ratio: float
    difference: float | None


@dataclass(frozen=True, slots=True)
class CommitRow:
    """A commit by FlexLoRA or FLoRA beside the formula in dense matrices, one core each.

    `ratio` is the peer's seconds over ours. Differences are of products, against float64, the largest of
    all modules and target ranks. FLoRA's merged product is kept at the rule's rank, the dense one whole.
    """

    rule: str
    kind: Kind
    seconds: float
    peer_seconds: float
    ratio: float
    cpu_ratio: float
    peer_library: str
    difference: float
    peer_difference: float


@dataclass(frozen=True, slots=True)
class StreamRow:
    """So many updates of mixed ranks, each read from a file, by HetLoRA; `peak_rss_bytes` is of the process.

    `hashed`: each is checked against its SHA-256 first, as the service does. `resident_bytes` were held at
    equal distances on the way.
    """

    count: int
    engine: str
    workers: int
    hashed: bool
    adapters_per_second: float
    bytes_per_second: float
    peak_rss_bytes: int
    resident_bytes: tuple[int, ...]


def run_task(work: Path, task: str, *, one_core: bool = True, **config: Any) -> Measured:
    """Run one task of `benchmarks.aggregation.process`."""
    path = _written(work, {"task": task, **config})
    run = run_on_one_core if one_core else run_measured
    return run([sys.executable, "-m", "benchmarks.aggregation.process", path])


def run_peer(work: Path, python: Path, script: Path, **config: Any) -> Measured:
    """Run a peer's script on one core."""
    return run_on_one_core([python, script, _written(work, config)])


def _written(work: Path, config: Mapping[str, Any]) -> Path:
    path = work / f"config-{len([*work.glob('config-*')])}.json"
    path.write_text(json.dumps(config, default=str))
    return path


def against_flower(
    work: Path, updates: Path, python: Path, rank: int, *, count: int, passes: int, pairs: int
) -> list[FlowerRow]:
    """Our rules and Flower's mean over the same stored updates, in turn."""
    out = work / f"means-{rank}"
    out.mkdir()
    config: dict[str, Any] = {"updates": updates, "count": count, "passes": passes, "out": out}
    runs = paired(
        lambda: run_task(work, "throughput", rank=rank, rules=RULES, **config),
        lambda: run_peer(work, python, FLOWER, **config),
        pairs=pairs,
    )
    difference = mean_difference(load_file(out / "zero_pad.safetensors"), dict(np.load(out / "flower.npz")))
    return [flower_row(rule, rank, count, runs, difference if rule == "zero_pad" else None) for rule in RULES]


def flower_row(rule: str, rank: int, count: int, runs: Sequence[Pair], difference: float | None) -> FlowerRow:
    """The figures of one rule."""
    ours = [pair.ours.last_json()["rules"][rule] for pair in runs]
    peer = [pair.peer.last_json() for pair in runs]
    seconds, cpu = ([one[name] for one in ours] for name in ("seconds", "cpu_seconds"))
    peer_seconds, peer_cpu = ([one[name] for one in peer] for name in ("seconds", "cpu_seconds"))
    return FlowerRow(
        rule,
        rank,
        round(count / float(np.median(seconds)), 1),
        round(count / float(np.median(peer_seconds)), 1),
        round(median_ratio(peer_seconds, seconds), 3),
        round(median_ratio(peer_cpu, cpu), 3),
        difference,
    )


def mean_difference(ours: Mapping[str, np.ndarray], peer: Mapping[str, np.ndarray]) -> float:
    """The largest difference between two means, over the largest number."""
    largest = max(float(np.abs(tensor).max()) for tensor in ours.values())
    return max(float(np.abs(tensor - peer[name]).max()) for name, tensor in ours.items()) / largest


def against_dense(
    work: Path, updates: Path, python: Path, kind: Kind, ranks: Sequence[int], *, pairs: int
) -> CommitRow:
    """Our FlexLoRA commit and the published one of the same updates, in turn."""
    out, exact_out = work / f"commit-{kind}", work / f"exact-{kind}"
    out.mkdir()
    exact_out.mkdir()
    runs = paired(
        lambda: run_task(work, "commit", rule="flexlora", updates=updates, ranks=ranks, out=out),
        lambda: run_peer(work, python, DENSE, updates=updates, ranks=RANKS, dtype="float32", out=out),
        pairs=pairs,
    )
    run_peer(work, python, DENSE, updates=updates, ranks=[max(RANKS)], dtype="float64", out=exact_out)
    exact, dense = dict(np.load(exact_out / "dense.npz")), dict(np.load(out / "dense.npz"))
    ours = {rank: load_file(out / f"{rank}.safetensors") for rank in RANKS}
    return commit_row(
        "flexlora",
        kind,
        runs,
        max(largest_difference(ours[rank], exact, rank) for rank in RANKS),
        max(largest_difference(_factors(dense, rank), exact, rank) for rank in RANKS),
    )


def flora_against_dense(
    work: Path, updates: Path, python: Path, kind: Kind, ranks: Sequence[int], *, pairs: int
) -> CommitRow:
    """Our FLoRA commit, and the mean product that the formula adds to the weights, in turn."""
    out, exact_out = work / f"flora-{kind}", work / f"flora-exact-{kind}"
    out.mkdir()
    exact_out.mkdir()
    runs = paired(
        lambda: run_task(work, "commit", rule="flora", updates=updates, ranks=ranks, out=out),
        lambda: run_peer(work, python, DENSE, updates=updates, ranks=[], dtype="float32", out=out),
        pairs=pairs,
    )
    run_peer(work, python, DENSE, updates=updates, ranks=[], dtype="float64", out=exact_out)
    exact, dense = dict(np.load(exact_out / "dense.npz")), dict(np.load(out / "dense.npz"))
    difference = largest_difference_of_means(load_file(out / f"{max(RANKS)}.safetensors"), exact)
    off = max(float(np.linalg.norm(dense[key] - Q) / np.linalg.norm(Q)) for key, Q in exact.items())
    return commit_row("flora", kind, runs, difference, off)


def _factors(dense: Mapping[str, np.ndarray], rank: int) -> dict[str, np.ndarray]:
    factors = {}
    for module in (key.removesuffix(".left") for key in dense if key.endswith(".left")):
        key_A, key_B = factor_keys(module)
        factors[key_A] = dense[f"{module}.right"][:rank]
        factors[key_B] = dense[f"{module}.left"][:, :rank]
    return factors


def commit_row(
    rule: str, kind: Kind, runs: Sequence[Pair], difference: float, peer_difference: float
) -> CommitRow:
    """The figures of one rule and kind of updates."""
    ours, peer = [pair.ours.last_json() for pair in runs], [pair.peer.last_json() for pair in runs]
    seconds, cpu = ([one[name] for one in ours] for name in ("seconds", "cpu_seconds"))
    peer_seconds, peer_cpu = ([one[name] for one in peer] for name in ("seconds", "cpu_seconds"))
    return CommitRow(
        rule,
        kind,
        round(float(np.median(seconds)), 3),
        round(float(np.median(peer_seconds)), 3),
        round(median_ratio(peer_seconds, seconds), 2),
        round(median_ratio(peer_cpu, cpu), 2),
        peer[-1]["library"],
        difference,
        peer_difference,
    )


def stream(
    work: Path, updates: Path, count: int, *, engine: str = "local", workers: int = 1, hashed: bool = False
) -> StreamRow:
    """Aggregate so many updates out of a folder of stored ones, ranks in turn."""
    config = {"updates": updates, "count": count, "engine": engine, "workers": workers, "hashed": hashed}
    rule = {"rule": "hetlora", "run_rank": max(RANKS), "ranks": RANKS}
    alone = engine == "local" and workers == 1
    return stream_row(config, updates, run_task(work, "stream", one_core=alone, **config, **rule))


def stream_row(config: Mapping[str, Any], updates: Path, measured: Measured) -> StreamRow:
    """The figures of one stream."""
    told, count = measured.last_json(), config["count"]
    sizes = [path.stat().st_size for path in sorted(updates.glob("*.safetensors"))]
    total = sum(sizes[number % len(sizes)] for number in range(count))
    return StreamRow(
        count,
        config["engine"],
        config["workers"],
        config["hashed"],
        round(count / told["seconds"], 1),
        round(total / told["seconds"]),
        measured.peak_rss_bytes,
        tuple(told["resident_bytes"]),
    )
