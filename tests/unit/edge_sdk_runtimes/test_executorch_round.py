"""A round of a device with ExecuTorch, over HTTP, which leaves the files of other runtimes where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from parity import batch_for
from strong_device import STRONG

from edge_sdk import EdgeClient
from edge_sdk.events import Downloaded, Event
from edge_sdk.examples import Example
from edge_sdk.runtimes import runtime_named
from edge_sdk.runtimes.executorch import ExecutorchModel
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.testing import FakeService


@pytest.mark.slow
def test_device_with_executorch_fetches_its_programs_alone_and_answers_with_them(
    executorch_case: Callable[[str], tuple[Path, Bundle]], tmp_path: Path
) -> None:
    bundle = executorch_case("bert")[1]
    events: list[Event] = []
    training = TrainingSettings(steps=2, batch_size=2, max_tokens=16)
    with (
        FakeService(bundle, training=training) as service,
        EdgeClient(
            service.url,
            "fleet",
            tmp_path / "device",
            enrolment_token="token",
            capabilities=STRONG,
            threads=1,
            runtime=runtime_named("executorch"),
            on_event=events.append,
        ) as client,
    ):
        client.examples.put_many([Example("snow rain", "weather"), Example("bread soup", "food")])
        visit = client.run_once()
        assert visit.outcome == "accepted", visit.reason
        model = client.adapters.model()
    files = bundle.manifest.files
    fetched = {event.name for event in events if isinstance(event, Downloaded)} & files.keys()
    assert fetched == {"training.pte", "inference.pte", "base.ptd", "tokenizer.json"}
    assert {path.name for path in (tmp_path / "device").rglob("*")} & files.keys() == fetched
    assert visit.choice is not None
    assert visit.choice.forecast.bundle_bytes == sum(files[name].size_bytes for name in fetched)
    assert isinstance(model, ExecutorchModel)
    assert np.isfinite(model.logits(batch_for(bundle))).all()
