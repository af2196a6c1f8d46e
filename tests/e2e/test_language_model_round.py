"""A round on a language model with quantised weights, whose merged adapter answers as devices were taught."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_fleet import TinyFleet
from tiny_families import write_tiny_family
from tiny_model import WORDS

from benchmarks.fleet import DeviceSetup
from edge_sdk import TextGenerator
from export.bundle_writer import export_bundle
from hetlora.messages.device import TrainingSettings
from hetlora.states import RunState
from hetlora.tensors import adapter_from_bytes

pytestmark = pytest.mark.slow

PROMPT, ANSWER = " ".join(WORDS[:3]), " ".join(WORDS[5:7])


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
        training = TrainingSettings(steps=60, batch_size=4, max_tokens=16, learning_rate=1e-2)
        run = fleet.start_run(rounds=1, goal_count=2, training=training)
        for rank in (2, 8):
            fleet.start_device(DeviceSetup(f"rank-{rank}", fleet.for_rank(rank), [(PROMPT, ANSWER)]))
        finished = fleet.finished(run)
        assert finished.state is RunState.COMPLETED
        assert finished.adapter_version is not None
        merged = adapter_from_bytes(
            fleet.operator.adapter_bytes(finished.adapter_version), bundle.manifest.adapter
        )
    generator = TextGenerator(bundle, threads=1)
    assert generator.generate(PROMPT, adapter=merged).text == ANSWER
    assert generator.generate(PROMPT).text != ANSWER
