from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.bundle_bytes import bundle_bytes
from benchmarks.peers.training_step import LOSS_TOLERANCE, Step, compare_steps
from benchmarks.round_cost import Setup, measure_rounds
from edge_sdk.examples import Example
from hetlora.adapter import initial_adapter
from hetlora.bundle import Bundle
from hetlora.cli.main import app
from hetlora.errors import RankOutOfRange
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import adapter_to_bytes

pytestmark = pytest.mark.slow

WORDS = "the rain falls on a field where nobody plays"
PASSAGES = [Example(f"{WORDS} {label}", label) for label in ("weather", "food", "sport", "unknown")]
TRAINING = TrainingSettings(steps=2, batch_size=4, max_tokens=16, pruning_decay=1.0)


def test_help_of_a_benchmark_is_its_own() -> None:
    shown = CliRunner().invoke(app, ["bench", "round", "--help"])
    assert shown.exit_code == 0
    assert "--pairs" in shown.output


def test_rounds_are_accounted_for(tiny_bundle: Bundle, tmp_path: Path) -> None:
    setup = Setup(devices=2, rounds=2, training=TRAINING, threads=1, seed=0)
    told: list[str] = []
    cost = measure_rounds(tiny_bundle, setup, PASSAGES, tmp_path, progress=told.append)

    # The tiny model's adapter is so small that traffic limits nobody: all take the bundle's largest rank.
    spec = tiny_bundle.manifest.adapter
    adapter_bytes = len(adapter_to_bytes(initial_adapter(spec, 8, np.random.default_rng(0))))
    assert [(row.round_index, row.device, row.rank) for row in cost.assignments] == [
        (0, "board-1", 8),
        (0, "phone-2", 8),
        (1, "board-1", 8),
        (1, "phone-2", 8),
    ]
    assert {row.adapter_downloaded_bytes for row in cost.assignments} == {adapter_bytes}
    assert {row.uploaded_bytes for row in cost.assignments} == {adapter_bytes}
    fetched = bundle_bytes(tiny_bundle, tiny_bundle.manifest.files_of("onnx"))
    assert [row.bundle_downloaded_bytes for row in cost.assignments] == [fetched, fetched, 0, 0]
    assert [row.downloaded_bytes for row in cost.rounds] == [2 * (fetched + adapter_bytes), 2 * adapter_bytes]
    assert [row.uploaded_bytes for row in cost.rounds] == [2 * adapter_bytes] * 2
    assert all(0 < row.training_share < 1 for row in cost.rounds)
    assert [row.process for row in cost.processes] == ["service", "board-1", "phone-2"]
    assert all(row.peak_rss_bytes > 30_000_000 and row.cpu_seconds > 0 for row in cost.processes)
    assert told == ["starting a service and 2 devices", "round 1 of 2 committed"]


def test_comparison_beyond_the_bundles_ranks_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(RankOutOfRange, match="rank of the comparison; got 9; expected 1 to 8"):
        Step(tiny_bundle, tmp_path, rank=9, training=TRAINING, threads=1, seed=0)


def test_both_sides_of_the_comparison_compute_the_same(
    tiny_bundle: Bundle, tiny_model_folder: Path, tmp_path: Path
) -> None:
    step = Step(tiny_bundle, tiny_model_folder, rank=4, training=TRAINING, threads=1, seed=0)
    # This environment has the peer's packages too; the benchmark proper gives the peer one of its own.
    figures = compare_steps(step, PASSAGES, tmp_path, peer=Path(sys.executable), pairs=1)
    assert figures["first_losses_agree"] is True
    pair = figures["pairs"][0]
    assert pair["ours"]["last_loss"] == pytest.approx(pair["peer"]["last_loss"], abs=10 * LOSS_TOLERANCE)
    assert pair["ours"]["last_loss"] != pytest.approx(pair["ours"]["first_loss"], abs=10 * LOSS_TOLERANCE)
    assert (figures["batch"], figures["tokens"]) == (4, 16)
    assert figures["memory_ratio"] == pytest.approx(
        pair["ours"]["peak_rss_bytes"] / pair["peer"]["peak_rss_bytes"], abs=1e-3
    )
    assert figures["time_ratio"] == pytest.approx(
        pair["peer"]["seconds_per_step"] / pair["ours"]["seconds_per_step"], abs=1e-3
    )
