"""One round as code: unequal devices, real HTTP, and the committed adapter recomputed from its formula."""

from __future__ import annotations

import numpy as np
import pytest
from e2e_fleet import TinyFleet

from hetlora.adapter import Adapter
from hetlora.states import AssignmentState, RunState

pytestmark = pytest.mark.slow

RELATIVE_TOLERANCE = 1e-6  # the result is float32, the reference float64


def dense_norm(adapter: Adapter) -> float:
    """||B A||_F over all modules, with every product formed: what the Gram matrices must agree with."""
    products = [
        factors.lora_B.astype(np.float64) @ factors.lora_A.astype(np.float64) for _, factors in adapter
    ]
    return float(np.sqrt(sum((product**2).sum() for product in products)))


def test_committed_adapter_is_the_norm_weighted_zero_padded_mean_of_unequal_ranks(fleet: TinyFleet) -> None:
    run = fleet.start_run(rounds=1, goal_count=3)
    for rank in (2, 4, 8):
        fleet.device(f"rank-{rank}", fleet.for_rank(rank))

    finished = fleet.finished(run)

    assert finished.state is RunState.COMPLETED
    accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert sorted(status.rank or 0 for status in accepted) == [2, 4, 8]
    assert sum(status.aggregation_weight or 0 for status in accepted) == pytest.approx(1)
    updates = fleet.updates().values()
    assert len(updates) == 3
    norms = [dense_norm(update) for update in updates]
    committed = fleet.committed(finished.adapter_version)
    for name, factors in committed.factors.items():
        for part, axis in (("lora_A", 0), ("lora_B", 1)):
            got = getattr(factors, part)
            expected = np.zeros(got.shape)
            for norm, update in zip(norms, updates, strict=True):
                tensor = getattr(update.factors[name], part).astype(np.float64)
                leading = [slice(None), slice(None)]
                leading[axis] = slice(tensor.shape[axis])
                expected[tuple(leading)] += norm / sum(norms) * tensor
            np.testing.assert_allclose(got, expected, rtol=RELATIVE_TOLERANCE, atol=1e-9)


def test_what_self_pruning_left_is_remembered_for_the_next_round(fleet: TinyFleet) -> None:
    # The first round cannot prune: lora_B arrives as zeros, so the tail only grows. After that a penalty this
    # heavy shrinks it in every round: floor(0.5 * 8) = 4, floor(0.5 * 4) = 2.
    training = {"steps": 5, "batch_size": 4, "max_tokens": 16, "learning_rate": 1e-2}
    pruning = {"pruning_decay": 0.5, "pruning_penalty": 1000.0}
    run = fleet.start_run(rounds=3, goal_count=1, training=training | pruning)
    fleet.device("pruned")

    assert fleet.finished(run).state is RunState.COMPLETED

    by_round = sorted(fleet.in_state(run, AssignmentState.ACCEPTED), key=lambda status: status.round_index)
    assert [status.rank for status in by_round] == [8, 8, 4]
    assert [status.updated_rank for status in by_round] == [8, 4, 2]


def test_a_second_visit_downloads_the_adapter_and_not_the_bundle(fleet: TinyFleet) -> None:
    run = fleet.start_run(rounds=2, goal_count=1)
    fleet.device("returning")

    fleet.finished(run)

    first, second = sorted(
        fleet.in_state(run, AssignmentState.ACCEPTED), key=lambda status: status.round_index
    )
    manifest = fleet.bundle.manifest
    bundle_bytes = sum(manifest.files[name].size_bytes for name in manifest.files_of("onnx"))
    assert first.downloaded_bytes is not None
    assert second.downloaded_bytes is not None
    assert first.downloaded_bytes > bundle_bytes
    assert second.downloaded_bytes < bundle_bytes / 2
