"""A real probe of the machine that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from recorded_systems import PI, recorded

from edge_sdk import measure_capabilities
from edge_sdk.probe import Probe, RateCache, System, take_probe
from edge_sdk.probe.model_shape import LayerShape, ModelShape
from edge_sdk.probe.processor import usable_cores
from hetlora import __version__

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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel holds a process to such a limit")
def test_limit_of_this_process_is_its_memory() -> None:
    limited = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (400 * 2**20, 400 * 2**20))
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.system import System
memory = measure_memory(System())
bytearray(memory.available_bytes)  # is to be had
try:
    bytearray(2 * memory.available_bytes)
except MemoryError:
    print(memory.total_bytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", limited], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == 400 * 2**20


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    """A device folder that has rates, and the probe that left them."""
    folder = tmp_path_factory.mktemp("device")
    return folder, probe(folder, NOW, SHAPE)


# This machine without its sensors: it may become hot between two probes.
COOL = System(sys=Path("/nowhere"))


def probe(folder: Path, now: float, shape: ModelShape | None = None, system: System = COOL) -> Probe:
    cache = RateCache(folder / "rates.json", clock=lambda: now)
    return take_probe(folder, shape=shape, cache=cache, system=system, clock=lambda: now)


def times(folder: Path) -> dict[str, float]:
    """When each rate was measured."""
    rates = json.loads((folder / "rates.json").read_text())["rates"]
    return {name: rate["taken_at"] for name, rate in rates.items()}


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
    others = {"matmul": NOW, "memory_bandwidth": NOW, "disk_write": NOW}
    assert times(folder) == {**others, "model_matmul": NOW + 120}


@pytest.mark.parametrize("limit", [__version__, str(usable_cores())], ids=["version", "cores"])
def test_rates_of_another_version_or_other_cores_are_measured_anew(
    kept: tuple[Path, Probe], tmp_path: Path, limit: str
) -> None:
    entries = json.loads((kept[0] / "rates.json").read_text())["rates"]
    assert limit in entries["matmul"]["circumstances"]
    entries["matmul"]["circumstances"] = entries["matmul"]["circumstances"].replace(limit, "another")
    (tmp_path / "rates.json").write_text(json.dumps({"rates": entries}))
    probe(tmp_path, NOW + 60)
    assert times(tmp_path)["matmul"] == NOW + 60
    assert times(tmp_path)["memory_bandwidth"] == NOW  # whose circumstances are as they were


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("sys/fs/cgroup/cpu.max", "max 100000", "150000 100000"),
        ("sys/class/thermal/cooling_device0/cur_state", "0", "1"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "1800000", "600000"),
    ],
    ids=["quota", "throttled", "clock"],
)
def test_rates_under_other_limits_are_measured_anew(
    tmp_path: Path, path: str, before: str, after: str
) -> None:
    free = {"proc/self/cgroup": "0::/", "sys/devices/platform/soc/soc:firmware/get_throttled": "0"}
    pi = recorded(tmp_path, PI, free, {path: before})
    probe(tmp_path, NOW, system=pi)
    probe(tmp_path, NOW + 60, system=pi)
    assert set(times(tmp_path).values()) == {NOW}
    probe(tmp_path, NOW + 120, system=recorded(tmp_path, {path: after}))
    processor = {"matmul": NOW + 120, "memory_bandwidth": NOW + 120}
    assert times(tmp_path) == {**processor, "disk_write": NOW}


def test_report_of_capabilities_is_measured(tmp_path: Path) -> None:
    report = measure_capabilities(tmp_path / "not" / "yet", traffic_bytes_per_round=5)
    assert (report.source, report.traffic_bytes_per_round) == ("measured", 5)
    assert report.memory_available_bytes > 0
    assert report.matmul_flops_per_second > 1e7
    assert report.architecture
