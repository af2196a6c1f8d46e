"""What the doctor says of a machine that is to train."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from edge_sdk.runtimes import RUNTIMES
from hetlora.cli.main import app

NOWHERE = "http://127.0.0.1:1"


def training() -> dict[str, tuple[bool, str]]:
    """Whether the machine trains, by runtime, and what is told of it."""
    told = json.loads(CliRunner().invoke(app, ["doctor", "--json", "--url", NOWHERE]).stdout)
    named = "training with "
    return {
        finding["name"].removeprefix(named): (finding["ok"], finding["detail"])
        for finding in told["findings"]
        if finding["name"].startswith(named)
    }


def test_every_runtime_that_is_installed_is_found_well() -> None:
    assert {name: ok for name, (ok, _) in training().items()} == dict.fromkeys(RUNTIMES, True)


def test_machine_without_onnx_runtime_is_told_what_it_lacks_and_trains_with_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as on ARM, for which there is no wheel
    found = training()
    assert not found["onnx"][0]
    assert "pip install onnxruntime-training-cpu" in found["onnx"][1]
    assert found["executorch"][0]
