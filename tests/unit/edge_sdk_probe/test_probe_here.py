"""A real probe of the machine that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edge_sdk import measure_capabilities
from edge_sdk.probe import Probe, RateCache, take_probe
from edge_sdk.probe.model_shape import LayerShape, ModelShape

NOW = 1_800_000_000.0
SHAPE = ModelShape(32, (LayerShape(64, 64, 4),))
PROBE = """
import json, sys
from pathlib import Path
from edge_sdk.probe import take_probe
told = json.loads(take_probe(Path(sys.argv[1])).model_dump_json())
unwanted = ("torch", "onnxruntime", "executorch", "httpx", "cryptography", "tokenizers")
print(json.dumps([told, [name for name in unwanted if name in sys.modules]]))
"""


def test_what_every_machine_tells_is_known_and_no_runtime_is_loaded_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told, loaded = json.loads(done.stdout)
    assert loaded == []
    assert 1 <= told["processor"]["cores"] <= (os.cpu_count() or 1)
    assert told["processor"]["architecture"]
    memory = told["memory"]
    assert 0 < memory["available_bytes"] <= memory["total_bytes"] <= psutil.virtual_memory().total
    assert told["disk_free_bytes"] > 0
    rates = told["rates"]
    assert 1e7 < rates["matmul_flops_per_second"] < 1e14
    assert 1e7 < rates["memory_bandwidth_bytes_per_second"] < 1e13
    assert 1e4 < rates["disk_write_bytes_per_second"] < 1e12
    assert (rates["model_matmul_flops_per_second"], rates["download_bytes_per_second"]) == (None, None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    """A device folder that has rates, and the probe that left them."""
    folder = tmp_path_factory.mktemp("device")
    return folder, probe(folder, NOW, SHAPE)


def probe(folder: Path, now: float, shape: ModelShape | None = None) -> Probe:
    cache = RateCache(folder / "rates.json", clock=lambda: now)
    return take_probe(folder, shape=shape, cache=cache, clock=lambda: now)


def test_rates_of_a_probe_are_taken_over_by_the_next(kept: tuple[Path, Probe]) -> None:
    folder, first = kept
    second = probe(folder, NOW + 60, SHAPE)
    assert first.rates.oldest_age_seconds == 0.0
    assert first.rates.model_matmul_flops_per_second is not None
    assert second.rates.oldest_age_seconds == 60.0
    for name in ("matmul_flops_per_second", "model_matmul_flops_per_second", "disk_write_bytes_per_second"):
        assert getattr(second.rates, name) == getattr(first.rates, name)
    assert (second.taken_at - first.taken_at).total_seconds() == 60


def test_another_model_is_tried_anew_and_nothing_else(kept: tuple[Path, Probe]) -> None:
    folder, _ = kept
    probe(folder, NOW + 120, ModelShape(32, (LayerShape(64, 32, 4),)))
    taken = {
        name: rate["taken_at"]
        for name, rate in json.loads((folder / "rates.json").read_text())["rates"].items()
    }
    others = {"matmul": NOW, "memory_bandwidth": NOW, "disk_write": NOW}
    assert taken == {**others, "model_matmul": NOW + 120}


def test_report_of_capabilities_is_measured(tmp_path: Path) -> None:
    report = measure_capabilities(tmp_path / "not" / "yet", traffic_bytes_per_round=5)
    assert (report.source, report.traffic_bytes_per_round) == ("measured", 5)
    assert report.memory_available_bytes > 0
    assert report.matmul_flops_per_second > 1e7
    assert report.architecture
