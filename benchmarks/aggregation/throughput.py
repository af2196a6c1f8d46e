"""How fast updates become a global adapter: from memory, from files, and what the machine can do at most."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from aggregator_service.aggregation.engines import Engine
from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import unstacked
from aggregator_service.aggregation.tree import Aggregate, aggregate, one_thread
from benchmarks.aggregation.served import (
    Served,
    reader_for,
    references,
    rule_named,
    state_before,
    stored_updates,
    timed,
)
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes

Config = dict[str, Any]
_SAMPLES: Final = 20


def run_throughput(config: Config) -> dict[str, Any]:
    """Aggregate updates that lie in memory as bytes, by each of some rules; medians over the passes."""
    blobs = [path.read_bytes() for path in stored_updates(config["updates"])]
    return {"rules": {name: _throughput(name, blobs, config) for name in config["rules"]}}


def _throughput(name: str, blobs: list[bytes], config: Config) -> dict[str, float]:
    settings, rank = rule_named(name), config["rank"]
    refs, before = references(config["count"], [rank]), state_before(settings, rank)

    def once() -> Aggregate:
        return aggregate(open_rule(settings, before), refs, Served(reader_for(settings, rank), blobs).load)

    mean = once().state.adapter  # warms up
    (Path(config["out"]) / f"{name}.safetensors").write_bytes(adapter_to_bytes(unstacked(mean)))
    passes = [timed(once) for _ in range(config["passes"])]
    return {
        "seconds": median(one.seconds for one in passes),
        "cpu_seconds": median(one.cpu_seconds for one in passes),
    }


def run_stream(config: Config) -> dict[str, Any]:
    """Aggregate updates that are read from files one after the other, as many as asked for."""
    paths = stored_updates(config["updates"])
    settings, rank, count = rule_named(config["rule"]), config["run_rank"], config["count"]
    digests = [sha256_of(path.read_bytes()) for path in paths] if config["hashed"] else []
    source = Served(reader_for(settings, rank), paths, digests, every=max(1, count // _SAMPLES))
    refs = references(count, config["ranks"])
    rule = open_rule(settings, state_before(settings, rank), sum(ref.rank for ref in refs))
    with closing(_engine(config["engine"], config["workers"])) as engine:
        timing = timed(lambda: engine.aggregate(rule, refs, source))
    return {
        "seconds": timing.seconds,
        "cpu_seconds": timing.cpu_seconds,
        "loaded_bytes": source.loaded_bytes,  # by this process, as those below
        "resident_bytes": source.resident,
    }


def _engine(name: str, workers: int) -> Engine:
    if name == "local":
        return LocalEngine(workers)
    from aggregator_service.aggregation.engines.ray_cluster import RayEngine

    return RayEngine(workers)


def run_limits(config: Config) -> dict[str, Any]:
    """How fast the same bytes can be read once and multiplied and added, hashed, and read from files."""
    paths = stored_updates(config["updates"])
    blobs = [path.read_bytes() for path in paths]
    arrays = [np.frombuffer(blob[: len(blob) // 4 * 4], np.float32) for blob in blobs]
    limits: dict[str, Callable[[], object]] = {
        # Of each array with itself: one read of every number, and one multiply-add.
        "memory": lambda: [array @ array for array in arrays],
        "sha256": lambda: [hashlib.sha256(blob).digest() for blob in blobs],
        "files": lambda: [len(path.read_bytes()) for path in paths],
    }
    size = sum(map(len, blobs))
    told = {}
    with one_thread(), np.errstate(all="ignore"):  # headers are no numbers
        for name, work in limits.items():
            seconds = min(timed(work).seconds for _ in range(config["passes"]))
            told[f"{name}_bytes_per_second"] = size / seconds
    return told
