"""A whole round of a device on PyTorch, over HTTP: from the offer to the update, and what answers then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from parity import batch_for, export_family
from strong_device import STRONG
from tiny_families import write_tiny_family
from typer.testing import CliRunner

from edge_sdk import EdgeClient
from edge_sdk.examples import Example
from edge_sdk.runtimes import open_model
from edge_sdk.runtimes.pytorch import PytorchModel
from hetlora.bundle import Bundle
from hetlora.cli.main import app
from hetlora.errors import BundleInvalid, DependencyMissing
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import to_tensors
from hetlora.testing import FakeService

EXAMPLES = [Example("snow rain sun", "weather"), Example("bread soup", "food"), Example("ball goal", "sport")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bert")
    model = write_tiny_family(root / "model", "bert")
    return export_family("bert", model, root / "bundle", runtimes=("onnx", "pytorch"))


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[..., EdgeClient]:
    def make(service: FakeService, name: str, **given: Any) -> EdgeClient:
        client = EdgeClient(
            service.url,
            "fleet",
            tmp_path / name,
            enrolment_token="token",
            capabilities=STRONG,
            threads=1,
            **given,
        )
        client.examples.put_many(EXAMPLES)
        client.held_out.put_many(EXAMPLES)
        return client

    return make


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Runs `hetlora device run` once, each time as another device."""
    (tmp_path / "texts.json").write_text(json.dumps([[own.text, own.label] for own in EXAMPLES]))
    (tmp_path / "profile.json").write_text(STRONG.model_dump_json())
    folders = (str(tmp_path / f"device-{number}") for number in range(9))

    def once(service: FakeService, *options: str) -> Result:
        where = ["--url", service.url, "--population", "fleet", "--folder", next(folders)]
        given = ["--examples", str(tmp_path / "texts.json"), "--profile", str(tmp_path / "profile.json")]
        token = ["--enrolment-token", "token", "--threads", "1", "--once"]
        return CliRunner().invoke(app, ["device", "run", *where, *given, *token, *options])

    return once


def _service(bundle: Bundle) -> FakeService:
    return FakeService(bundle, training=TrainingSettings(steps=3, batch_size=2, max_tokens=16, evaluate=True))


def test_round_is_trained_and_scored_where_pytorch_alone_is_installed(
    bundle: Bundle, client_of: Callable[..., EdgeClient], without: Callable[..., None]
) -> None:
    with _service(bundle) as service, client_of(service, "onnx") as client:
        expected = client.run_once().report
    without("onnxruntime", "executorch")
    with _service(bundle) as service, client_of(service, "pytorch") as client:
        visit = client.run_once()
        assert visit.outcome == "accepted", visit.reason
        [report] = service.reports
        model = open_model(bundle, to_tensors(service.updates[0]), threads=1)
    assert expected is not None
    for name in ("first_loss", "last_loss", "held_out_loss_before", "held_out_loss_after"):
        assert getattr(report, name) == pytest.approx(getattr(expected, name), abs=1e-4), name
    assert isinstance(model, PytorchModel)
    assert np.isfinite(model.logits(batch_for(bundle))).all()


def test_device_trains_with_the_runtime_that_its_command_names(
    bundle: Bundle, tiny_bundle: Bundle, run: Callable[..., Result], tmp_path: Path
) -> None:
    with _service(bundle) as service:
        done = run(service, "--runtime", "pytorch", "--held-out", str(tmp_path / "texts.json"))
        assert done.exit_code == 0, done.output
        assert len(service.updates) == 1
    for when in ("before", "after"):
        assert f"loss on 3 held-out examples {when} training: " in done.output
    with _service(tiny_bundle) as service:  # it has no files for PyTorch, and ONNX Runtime could train it
        assert isinstance(run(service, "--runtime", "pytorch").exception, BundleInvalid)
        assert [failure.code for failure in service.failures] == [BundleInvalid.code]


def test_runtime_that_is_named_and_not_installed_fails_before_a_visit(
    bundle: Bundle, run: Callable[..., Result], without: Callable[..., None]
) -> None:
    without("transformers")
    with _service(bundle) as service:
        assert isinstance(run(service, "--runtime", "pytorch").exception, DependencyMissing)
        assert service.requests == []
