"""A run whose adapters real devices evaluate, against the same model computed here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from e2e_fleet import TinyFleet, wait_until
from typer.testing import CliRunner

from edge_sdk.batching.tokens import text_encoder
from edge_sdk.runtimes.onnx import OnnxModel
from hetlora.algebra import truncate
from hetlora.cli.main import app
from hetlora.cli.operator import TOKEN_FILE
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationFigures
from hetlora.states import EvaluationState, RunState
from hetlora.tensors import adapter_from_bytes, to_tensors

pytestmark = pytest.mark.slow

TOKENS = 16


def rows_of(fleet: TinyFleet, device: int) -> list[tuple[str, str]]:
    """Unequally many on each device, more than a batch of 4 on all but the first."""
    labels = fleet.bundle.manifest.labels
    return [
        (f"held out by {device} about {label} and {number}", label)
        for number in range(device + 1)
        for label in labels
    ]


def computed(fleet: TinyFleet, version: str, rank: int, devices: range) -> EvaluationFigures:
    """What the devices should come to: softmax of the inference graph's logits, in float64."""
    manifest = fleet.bundle.manifest
    whole = adapter_from_bytes(fleet.operator.adapter_bytes(version), manifest.adapter)
    model = OnnxModel(fleet.bundle, to_tensors(truncate(whole, rank)))
    encoder = text_encoder(fleet.bundle, max_tokens=TOKENS)
    losses, rights = [], []
    for device in devices:
        rows = rows_of(fleet, device)
        logits = model.logits(encoder.encode([text for text, _ in rows])).astype(np.float64)
        labels = np.array([manifest.labels.index(label) for _, label in rows])
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(shares[np.arange(len(rows)), labels]))
        rights.append(logits.argmax(axis=1) == labels)
    by_device = np.array([own.mean() for own in losses]), np.array([own.mean() for own in rights])
    return EvaluationFigures(
        example_count=sum(map(len, losses)),
        loss=float(np.concatenate(losses).mean()),
        device_loss=float(by_device[0].mean()),
        device_loss_deviation=float(by_device[0].std()),
        accuracy=float(np.concatenate(rights).mean()),
        device_accuracy=float(by_device[1].mean()),
        device_accuracy_deviation=float(by_device[1].std()),
    )


def test_every_second_version_has_the_figures_that_its_model_has_on_held_out_examples(
    fleet: TinyFleet,
) -> None:
    devices = range(3)
    run = fleet.start_run(
        rounds=3,
        goal_count=2,
        training=TrainingSettings(
            steps=3, batch_size=4, max_tokens=TOKENS, learning_rate=0.05, pruning_decay=1.0
        ),
        evaluation={"every_rounds": 2, "devices": len(devices), "window_seconds": 300},
    )
    for device in devices:
        fleet.evaluator(f"evaluator-{device}", rows_of(fleet, device))
    assert fleet.finished(run).state is RunState.COMPLETED

    def evaluated() -> dict[int, str]:
        return {
            own.round_index: own.version
            for own in fleet.operator.adapters(run.run_id)
            if own.evaluation is not None and own.evaluation.state is EvaluationState.CLOSED
        }

    wait_until(lambda: len(evaluated()) == 2, "two evaluations")
    # Of the second round, and of the third, which is the last.
    assert sorted(evaluated()) == [1, 2]
    for own in fleet.operator.adapters(run.run_id):
        if own.evaluation is None:
            continue
        assert own.evaluation.reports == 3
        assert own.evaluation.figures is not None
        expected = computed(fleet, own.version, 4, devices)
        assert own.evaluation.figures.model_dump() == pytest.approx(expected.model_dump(), rel=1e-4, abs=1e-5)

    token = (fleet.service.data_dir / TOKEN_FILE).read_text().strip()
    where = ["--url", fleet.service.url, "--token", token]
    shown = CliRunner().invoke(app, ["run", "show", run.run_id, *where, "--json"], catch_exceptions=False)
    told = json.loads(shown.stdout)["evaluations"]
    assert [item["round_index"] for item in told] == [1, 2]
    assert [item["figures"]["example_count"] for item in told] == [
        sum(len(rows_of(fleet, one)) for one in devices)
    ] * 2
    table = CliRunner().invoke(app, ["run", "show", run.run_id, *where], catch_exceptions=False).stdout
    assert "3 of 3" in table
