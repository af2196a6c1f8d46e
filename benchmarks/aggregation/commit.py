"""A commit of products, our way: from stored bytes to what devices of each rank are sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import factors_of, unstacked
from aggregator_service.aggregation.tree import aggregate
from benchmarks.aggregation.served import (
    Served,
    reader_for,
    references,
    state_before,
    stored_updates,
    timed,
)
from benchmarks.gemma_adapters import RANKS
from hetlora.messages.rules import AnyRule, FlexLoraRule, FloraRule
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_to_bytes, factor_keys, factor_tensors

COMMITTED: Final[dict[str, AnyRule]] = {"flexlora": FlexLoraRule(), "flora": FloraRule()}


def run_commit(config: dict[str, Any]) -> dict[str, Any]:
    """Aggregate the products of all updates, and make what each target rank is sent, or what FLoRA merges."""
    blobs = [path.read_bytes() for path in stored_updates(config["updates"])]
    refs = references(len(blobs), config["ranks"])
    settings, rank = COMMITTED[config["rule"]], max(RANKS)
    before = state_before(settings, rank)
    sent: dict[int, Handout] = {}

    def commit() -> None:
        rule = open_rule(settings, before, sum(ref.rank for ref in refs))
        after = aggregate(rule, refs, Served(reader_for(settings, rank), blobs).load).state
        next_rule = open_rule(settings, after)
        sent.update({target: next_rule.distribute(target) for target in RANKS})

    timing = timed(commit)
    for target, handout in sent.items():
        (Path(config["out"]) / f"{target}.safetensors").write_bytes(
            adapter_to_bytes(unstacked(handout.adapter))
            if handout.frozen is None
            else tensors_to_bytes(factor_tensors(factors_of(handout.frozen)))
        )
    return {"seconds": timing.seconds, "cpu_seconds": timing.cpu_seconds}


def largest_difference_of_means(ours: Mapping[str, np.ndarray], dense: Mapping[str, np.ndarray]) -> float:
    """The largest ||P - Q||_F / ||Q||_F over all modules, of our merged product P and the dense mean Q.

    Args:
        ours: factors by PEFT key.
        dense: by module `.mean`.
    """
    worst = 0.0
    for module in (key.removesuffix(".mean") for key in dense):
        lora_A, lora_B = (ours[key].astype(np.float64) for key in factor_keys(module))
        Q = dense[f"{module}.mean"].astype(np.float64)
        worst = max(worst, float(np.linalg.norm(lora_B @ lora_A - Q) / np.linalg.norm(Q)))
    return worst


def largest_difference(ours: Mapping[str, np.ndarray], dense: Mapping[str, np.ndarray], rank: int) -> float:
    """The largest ||P - Q||_F / ||Q||_F over all modules, of our product P and the published way's Q.

    Args:
        ours: factors of this rank by PEFT key.
        dense: by module `.left`, singular vectors times values, and `.right`, both of this rank at least.
    """
    worst = 0.0
    for module in {key.removesuffix(".left") for key in dense if key.endswith(".left")}:
        left, right = dense[f"{module}.left"][:, :rank], dense[f"{module}.right"][:rank]
        lora_A, lora_B = (ours[key] for key in factor_keys(module))
        Q = left.astype(np.float64) @ right
        P = lora_B.astype(np.float64) @ lora_A
        worst = max(worst, float(np.linalg.norm(P - Q) / np.linalg.norm(Q)))
    return worst
