"""ONNX Runtime trains on from a checkpoint as if it had never stopped."""

from __future__ import annotations

import time
from pathlib import Path

from killed import Killed
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, Resumed, StepDone
from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.testing import FakeService

STEPS = 80
TEXTS = ("it rained all day", "a dry summer", "snow in may", "wind from the sea", "fog at noon")


def delivered(bundle: Bundle, folder: Path, killed_after: int | None) -> tuple[bytes, list[int]]:
    """The update of a device, and from which steps it went on."""
    resumed: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Resumed):
            resumed.append(event.step)
        if isinstance(event, StepDone) and killed_after is not None and not resumed:
            time.sleep(0.01)  # so that a checkpoint is due before the kill
            if event.step == killed_after:
                raise Killed

    training = TrainingSettings(steps=STEPS, batch_size=2, max_tokens=16)
    with FakeService(bundle, training=training) as service:
        for _ in range(2):
            with EdgeClient(
                service.url,
                "weather",
                folder,
                enrolment_token="token",
                capabilities=STRONG,
                threads=1,
                runtime=OnnxRuntime,
                on_event=on_event,
            ) as client:
                labels = bundle.manifest.labels
                for number, text in enumerate(TEXTS):
                    client.examples.put(text, labels[number % len(labels)], key=text)
                try:
                    visit = client.run_once()
                except Killed:
                    continue
                assert visit.outcome == "accepted"
                break
        return service.bodies[0], resumed


def test_update_is_that_of_an_undisturbed_training_bit_for_bit(tiny_bundle: Bundle, tmp_path: Path) -> None:
    undisturbed, never = delivered(tiny_bundle, tmp_path / "undisturbed", None)
    update, resumed = delivered(tiny_bundle, tmp_path / "killed", killed_after=60)
    assert update == undisturbed
    assert never == []
    assert 1 <= resumed[0] <= 60
