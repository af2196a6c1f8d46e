"""Sums of products kept as a stack or as a sketch: what each costs as the cohort grows (`products.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from safetensors.numpy import load_file

from aggregator_service.aggregation.products import STACK_BYTES, ProductStack, zero_products
from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import unstacked
from aggregator_service.aggregation.tree import aggregate
from benchmarks.aggregation.runs import run_task
from benchmarks.aggregation.served import Served, reader_for, references, state_before, stored_updates, timed
from benchmarks.gemma_adapters import RANKS, gemma_spec
from hetlora.messages.rules import FlexLoraRule
from hetlora.tensors import adapter_to_bytes, factor_keys

Kept = Literal["stack", "sketch"]
# What a rule is told of its cohort's ranks decides: nothing, or more than any stack may hold.
RANK_TOTALS: Final[dict[Kept, int]] = {"stack": 0, "sketch": STACK_BYTES}


@dataclass(frozen=True, slots=True)
class CrossoverRow:
    """One cohort both ways, by FlexLoRA on one core; `chosen` is the way that the service takes.

    `difference` is of the sketch's product from the stack's, over it, the largest of all modules.
    """

    updates: int
    rank_total: int
    chosen: Kept
    stack_seconds: float
    sketch_seconds: float
    stack_peak_rss_bytes: int
    sketch_peak_rss_bytes: int
    difference: float


def run_kept(config: dict[str, Any]) -> dict[str, Any]:
    """Aggregate a cohort, its sums kept as `config` says."""
    settings, rank = FlexLoraRule(), max(RANKS)
    rule = open_rule(settings, state_before(settings, rank), RANK_TOTALS[config["kept"]])
    served = Served(reader_for(settings, rank), stored_updates(config["updates"]))
    refs, states = references(config["count"], config["ranks"]), list[GlobalState]()
    timing = timed(lambda: states.append(aggregate(rule, refs, served.load).state))
    Path(config["out"]).write_bytes(adapter_to_bytes(unstacked(states[0].adapter)))
    return {"seconds": timing.seconds}


def crossover(work: Path, updates: Path, ranks: Sequence[int], count: int) -> CrossoverRow:
    """Both ways of a cohort of `count`, out of a folder of stored updates of these ranks."""
    ways = get_args(Kept)
    outs = {way: work / f"kept-{count}-{way}.safetensors" for way in ways}
    config: dict[str, Any] = {"updates": updates, "count": count, "ranks": ranks}
    runs = {way: run_task(work, "kept", kept=way, out=outs[way], **config) for way in ways}
    seconds = {way: round(runs[way].last_json()["seconds"], 2) for way in ways}
    rank_total = sum(ranks[number % len(ranks)] for number in range(count))
    chosen = zero_products(gemma_spec(max(RANKS)), max(RANKS), rank_total)
    return CrossoverRow(
        count,
        rank_total,
        "stack" if isinstance(chosen, ProductStack) else "sketch",
        seconds["stack"],
        seconds["sketch"],
        runs["stack"].peak_rss_bytes,
        runs["sketch"].peak_rss_bytes,
        _difference(outs["sketch"], outs["stack"]),
    )


def _difference(found: Path, expected: Path) -> float:
    ours, exact = load_file(found), load_file(expected)
    differences = []
    for module in gemma_spec(max(RANKS)).modules:
        key_A, key_B = factor_keys(module.name)
        product = exact[key_B].astype(np.float64) @ exact[key_A]
        off = ours[key_B].astype(np.float64) @ ours[key_A] - product
        differences.append(float(np.linalg.norm(off) / np.linalg.norm(product)))
    return max(differences)
