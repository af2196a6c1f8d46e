"""Every committed adapter made again from the stored updates: bit for bit, and by its formula in numpy."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.rule import GlobalState, Update, UpdateRef
from aggregator_service.aggregation.stacks import stacked, unstacked
from aggregator_service.aggregation.staleness import staleness_weight
from aggregator_service.aggregation.tree import aggregate
from aggregator_service.artifacts.adapters import opened
from aggregator_service.artifacts.global_state import state_from_tensors, state_tensors
from benchmarks.service.records import Records, Row
from benchmarks.service.stores import Read
from hetlora.adapter import AdapterSpec
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import HetLoraRule
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes, factor_keys

# The service sums in float64 and rounds once, and so does the formula here; their orders differ.
TOLERANCE: Final = 1e-6

Tensors = dict[str, NDArray[Any]]


def check_adapters(records: Records, read: Read, spec: AdapterSpec) -> Iterator[str]:
    """Every committed adapter that its updates do not give; for runs whose updates are whole adapters."""
    versions = {(row["run_id"], row["round_index"]): row for row in records.adapter_versions}
    by_name = {row["id"]: row for row in records.adapter_versions}
    settings = {row["id"]: RunSettings.model_validate(row["settings"]) for row in records.runs}
    for row in records.rounds:
        before = by_name.get(row["base_version"])
        after = versions.get((row["run_id"], row["round_index"]))
        if row["state"] != "committed" or before is None or after is None or row["updates_dropped"]:
            continue
        own = settings[row["run_id"]]
        updates = [
            update
            for update in records.assignments
            if update["round_id"] == row["id"] and update["state"] == "accepted"
        ]
        try:
            made = _again(own, before, updates, read, spec, before["round_index"] + 1)
            same = made == (after["sha256"], after["state_sha256"])
        except Exception as error:  # whatever it is: it cannot be made again
            yield f"version {after['id']} cannot be made again: {type(error).__name__}: {error}"
            continue
        if not same:
            yield f"version {after['id']} is not what its {len(updates)} updates give"
        if isinstance(own.rule, HetLoraRule) and own.server_optimizer is None:
            yield from _by_formula(after, updates, read, spec)


def _again(
    settings: RunSettings, before: Row, updates: list[Row], read: Read, spec: AdapterSpec, index: int
) -> tuple[str, str | None]:
    """The digests of the adapter and of the state beside it, if there is one, of a fresh aggregation."""
    state = _state(before, read, spec, settings.max_rank, index)
    refs = {_ref(row): row for row in updates}
    reader = UpdateReader(spec)

    def loaded(ref: UpdateRef) -> Update:
        received = stacked(adapter_from_bytes(read("objects", ref.received_sha256), spec))
        return Update(
            reader.read(_update(read, refs[ref])),
            ref.example_count,
            received,
            ref.received_sha256,
            trust=staleness_weight(ref.staleness),
        )

    rule = opened(settings, state, sum(ref.rank for ref in refs))
    made = aggregate(rule, [_ref(row) for row in updates], loaded).state
    narrow = made.adapter.rank <= made.rank
    shown = made.adapter if narrow else opened(settings, made).distribute(made.rank).received
    alone = narrow and made.frozen is None and not made.tensors
    adapter = _digest(adapter_to_bytes(unstacked(shown)))
    return adapter, None if alone else _digest(tensors_to_bytes(state_tensors(made)))


def _state(before: Row, read: Read, spec: AdapterSpec, rank: int, index: int) -> GlobalState:
    if before["state_sha256"] is not None:
        return state_from_tensors(load(read("objects", before["state_sha256"])), spec, rank, index)
    return GlobalState(stacked(adapter_from_bytes(read("objects", before["sha256"]), spec)), rank, index)


def _ref(row: Row) -> UpdateRef:
    return UpdateRef(
        row["update_sha256"],
        row["report"]["example_count"],
        row["adapter_sha256"],
        row["rank"],
        staleness=row["staleness"],
    )


def _by_formula(after: Row, updates: list[Row], read: Read, spec: AdapterSpec) -> Iterator[str]:
    """HetLoRA by hand: zero-padded factors, weighted by the norms of the whole models' products."""
    tensors = [load(_update(read, row)) for row in updates]
    norms = np.array([_norm(own, spec) for own in tensors])
    weights = norms / norms.sum() if norms.any() else np.full(len(norms), 1 / len(norms))
    stored = np.array([row["aggregation_weight"] for row in updates])
    if not np.allclose(stored, weights, rtol=1e-6):
        yield f"weights of version {after['id']} are {stored}, their norms give {weights}"
    found = load(read("objects", after["sha256"]))
    for module in spec.modules:
        for key, axis in zip(factor_keys(module.name), (0, 1), strict=True):
            mean = np.zeros(found[key].shape)
            for own, weight in zip(tensors, weights, strict=True):
                part = own[key].astype(np.float64)
                into = (
                    (slice(part.shape[0]), slice(None)) if axis == 0 else (slice(None), slice(part.shape[1]))
                )
                mean[into] += weight * part
            if not np.allclose(found[key], mean, rtol=TOLERANCE, atol=TOLERANCE):
                yield f"{key} of version {after['id']} is not the mean of its updates"


def _norm(tensors: Tensors, spec: AdapterSpec) -> float:
    squares = 0.0
    for module in spec.modules:
        lora_A, lora_B = (tensors[key].astype(np.float64) for key in factor_keys(module.name))
        squares += float(((lora_B @ lora_A) ** 2).sum())
    return math.sqrt(squares)


def _update(read: Read, row: Row) -> bytes:
    return read(f"updates/{row['offered_in']}", row["update_sha256"])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
