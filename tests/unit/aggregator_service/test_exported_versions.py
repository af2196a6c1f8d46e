"""`hetlora adapter export` of rules whose model is more than an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from safetensors.numpy import load_file
from service_operator import TOKEN, Operator
from typer.testing import CliRunner

from hetlora.cli.main import app
from hetlora.errors import NotFound
from hetlora.plan_adapter import frozen_from_bytes
from hetlora.tensors import adapter_from_bytes, factor_keys


def test_exported_folder_holds_the_frozen_adapter_too(
    http: httpx.Client, operator: Operator, device: FakeDevice, tmp_path: Path
) -> None:
    run_id = operator.run(operator.publish(SPEC), rule="flora", max_rank=RANK)
    done = work(device, RANK, seed=3)
    adapter, frozen = operator.published(operator.committed(run_id)["adapter_version"])
    assert frozen is not None

    told = json.loads(exported(http, run_id, tmp_path / "peft"))

    assert told["rank"] == 2 * RANK  # what was trained is frozen now, and a new adapter begins
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    beside = frozen_from_bytes(frozen, SPEC)
    for name, own in adapter_from_bytes(adapter, SPEC).factors.items():
        lora_A, lora_B = (tensors[key] for key in factor_keys(name))
        expected = own.lora_B @ own.lora_A + beside[name].lora_B @ beside[name].lora_A
        np.testing.assert_allclose(lora_B @ lora_A, expected, atol=1e-5)
        update = done.update.factors[name]
        np.testing.assert_allclose(expected, update.lora_B @ update.lora_A, atol=1e-5)


def test_version_of_another_run_is_not_exported(
    http: httpx.Client, operator: Operator, bundle: str, tmp_path: Path
) -> None:
    run_id, other = operator.run(bundle), operator.run(bundle)
    with pytest.raises(NotFound, match="the run has no such adapter version"):
        exported(http, run_id, tmp_path / "peft", "--version", f"{other}-v000000")


def exported(http: httpx.Client, run_id: str, out: Path, *options: str) -> str:
    """What the command says."""
    where = ["--url", str(http.base_url), "--token", TOKEN, "--json"]
    arguments = ["adapter", "export", run_id, "--out", str(out), *options, *where]
    return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
