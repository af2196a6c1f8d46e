"""`hetlora adapter export` in each of its forms, of what a round of a real bundle committed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from fake_device import FakeDevice
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from peft import PeftModel
from service_bundle import random_adapter
from service_operator import TOKEN
from service_operator import Operator as Requests
from tiny_families import TINY_FAMILIES, VOCABULARY, write_tiny_family
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from export.bundle_writer import export_bundle
from export.quiet import quiet_libraries
from export.source.model_folder import load_model
from hetlora.bundle import Bundle
from hetlora.cli.main import app
from hetlora.cli.operator import Operator
from hetlora.errors import DigestMismatch, HetloraError, NotFound, SettingsError

TASK = "text-generation"
TOLERANCE = 1e-4
IDS = np.arange(12).reshape(2, 6) % len(VOCABULARY)
TOKENS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}

pytestmark = pytest.mark.parametrize("stage", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A tiny Llama, and its bundle."""
    root = tmp_path_factory.mktemp("real")
    model = write_tiny_family(root / "llama", "llama")
    targets = TINY_FAMILIES["llama"].targets
    return model, export_bundle(
        str(model), root / "bundle", task=TASK, targets=targets, max_rank=4, max_tokens=16
    )


@dataclass
class Fleet:
    """A population whose champion is what a round of this bundle committed."""

    http: httpx.Client
    model: Path
    bundle: Bundle
    run_id: str
    version: str

    def command(self, *arguments: object) -> str:
        where = ["--url", str(self.http.base_url), "--token", TOKEN]
        done = CliRunner().invoke(app, [*map(str, arguments), *where], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def export(self, *arguments: object) -> str:
        return self.command("adapter", "export", *arguments)


@pytest.fixture
def fleet(http: httpx.Client, operator: Requests, device: FakeDevice, exported: tuple[Path, Bundle]) -> Fleet:
    model, bundle = exported
    with Operator(str(http.base_url), TOKEN) as client:
        client.publish_bundle(bundle)
    run_id = operator.run(bundle.digest, max_rank=4, training={"max_tokens": 16})
    device.deliver(random_adapter(3, seed=1, spec=bundle.manifest.adapter), 3)
    version = operator.committed(run_id)["adapter_version"]
    message = {"version": version, "reason": "the only one"}
    operator.call("POST", "/populations/keyboard/aliases/champion:set", json=message)
    return Fleet(http, model, bundle, run_id, version)


def answer(model: torch.nn.Module) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = model(
            **{name: torch.from_numpy(own) for name, own in TOKENS.items()}
        ).logits.numpy()
    return logits


def test_every_form_answers_alike(fleet: Fleet, tmp_path: Path) -> None:
    peft, merged, onnx = (tmp_path / name for name in ("peft", "merged", "onnx"))
    fleet.export(fleet.run_id, "--out", peft)
    told = fleet.export(
        "keyboard@champion", "--format", "merged", "--base-model", fleet.model, "--out", merged, "--json"
    )
    assert json.loads(told)["version"] == fleet.version
    fleet.export("keyboard@champion", "--format", "onnx", "--bundle", fleet.bundle.folder, "--out", onnx)

    with quiet_libraries():
        base = load_model(fleet.model, TASK)
        without = answer(base)
        by_peft = answer(PeftModel.from_pretrained(base, str(peft)).eval())
        by_weights = answer(AutoModelForCausalLM.from_pretrained(merged).eval())
    session = InferenceSession(str(onnx / "model.onnx"), providers=["CPUExecutionProvider"])
    (by_graph,) = session.run(["logits"], TOKENS)

    assert np.abs(by_weights - by_peft).max() <= TOLERANCE
    assert np.abs(by_graph - by_peft).max() <= TOLERANCE
    assert np.abs(by_peft - without).max() > 100 * TOLERANCE


def test_peft_folder_is_verified_as_what_the_service_signed(fleet: Fleet, tmp_path: Path) -> None:
    fleet.export("keyboard@champion", "--out", tmp_path / "peft")
    (key,) = json.loads(fleet.command("adapter", "signing-keys", "--json"))["items"]
    verify = ["adapter", "verify", str(tmp_path / "peft"), "--public-key", key["public_key"], "--json"]
    verified = json.loads(CliRunner().invoke(app, verify, catch_exceptions=False).stdout)
    assert verified["files"] == ["adapter_model.safetensors"]
    assert verified["entry"]["version"] == fleet.version


def test_bundle_of_another_run_is_refused(fleet: Fleet, tmp_path: Path, tiny_bundle: Bundle) -> None:
    with pytest.raises(DigestMismatch, match="manifest of the bundle"):
        fleet.export(
            fleet.run_id, "--format", "onnx", "--bundle", tiny_bundle.folder, "--out", tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["keyboard@champion", "--version", "v"], SettingsError, "an alias names a version"),
        (["keyboard@nobody"], NotFound, "the population has no such alias"),
        (["nothing"], NotFound, "no such run"),
        (["RUN", "--format", "onnx"], SettingsError, "--bundle goes with --format onnx"),
        (["RUN", "--bundle", "x"], SettingsError, "--bundle goes with --format onnx"),
        (["RUN", "--format", "merged"], SettingsError, "--format merged wants the base model"),
    ],
)
def test_export_of_nothing_or_in_no_form_is_told(
    fleet: Fleet, tmp_path: Path, arguments: list[str], error: type[HetloraError], words: str
) -> None:
    given = [fleet.run_id if one == "RUN" else one for one in arguments]
    with pytest.raises(error, match=words):
        fleet.export(*given, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
