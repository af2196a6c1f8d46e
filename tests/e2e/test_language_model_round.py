"""A round on a language model with quantised weights, whose merged adapter answers as devices were taught.

Its evaluation on them is what the inference graph makes of the same text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e_fleet import TinyFleet, wait_until
from tiny_families import write_tiny_family
from tiny_model import WORDS

from benchmarks.fleet import DeviceSetup
from edge_sdk import TextGenerator
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.runtimes.onnx import OnnxModel
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationFigures
from hetlora.messages.management import RunStatus
from hetlora.states import RunState
from hetlora.tensors import adapter_from_bytes, to_tensors

pytestmark = pytest.mark.slow

PROMPT, ANSWER = " ".join(WORDS[:3]), " ".join(WORDS[5:7])
OTHER = " ".join(WORDS[2:5])


def figures_of(fleet: TinyFleet, run: RunStatus) -> EvaluationFigures | None:
    """Of the newest version, once its evaluation is closed."""
    newest = next(fleet.operator.adapters(run.run_id))
    return newest.evaluation.figures if newest.evaluation is not None else None


def loss_of(bundle: Bundle, adapter: Adapter) -> float:
    """What the inference graph's logits make of ANSWER after OTHER: the mean over its tokens and its end."""
    encoder = text_encoder(bundle)
    told, answer = encoder.prompt_ids(OTHER), encoder.ids(ANSWER, ends=True)
    logits = (
        OnnxModel(bundle, to_tensors(adapter)).logits(encoder.arrays([told + answer]))[0].astype(np.float64)
    )
    scored = logits[len(told) - 1 : -1]
    shares = np.exp(scored) / np.exp(scored).sum(axis=1, keepdims=True)
    return float(-np.log(shares[np.arange(len(answer)), answer]).mean())


def test_merged_adapter_answers_as_the_devices_were_taught(tmp_path: Path) -> None:
    bundle = export_bundle(
        str(write_tiny_family(tmp_path / "model", "smollm")),
        tmp_path / "bundle",
        task="text-generation",
        targets=["all-linear"],
        max_rank=8,
        max_tokens=16,
        base="int8",
    )
    with TinyFleet(tmp_path, bundle) as fleet:
        training = TrainingSettings(
            steps=60, batch_size=4, max_tokens=16, learning_rate=1e-2, pruning_decay=1.0
        )
        evaluation = {"devices": 2, "minimum_reports": 2}
        run = fleet.start_run(rounds=1, goal_count=2, training=training, evaluation=evaluation)
        for rank in (2, 8):
            setup = DeviceSetup(
                f"rank-{rank}", fleet.for_rank(rank), [(PROMPT, ANSWER)], held_out=[(OTHER, ANSWER)]
            )
            fleet.start_device(setup)
        finished = fleet.finished(run)
        assert finished.state is RunState.COMPLETED
        assert finished.adapter_version is not None
        merged = adapter_from_bytes(
            fleet.operator.adapter_bytes(finished.adapter_version), bundle.manifest.adapter
        )
        wait_until(lambda: figures_of(fleet, run) is not None, "the evaluation")
        figures = figures_of(fleet, run)
    assert figures is not None
    losses = [loss_of(bundle, truncate(merged, rank)) for rank in (2, 8)]
    assert figures.loss == pytest.approx(np.mean(losses), rel=1e-3)
    assert figures.device_loss_deviation == pytest.approx(np.std(losses), rel=1e-2, abs=1e-3)
    assert (figures.example_count, figures.accuracy) == (2, None)
    generator = TextGenerator(bundle, threads=1)
    assert generator.generate(PROMPT, adapter=merged).text == ANSWER
    assert generator.generate(PROMPT).text != ANSWER
