"""Whatever a kernel's files hold, a source answers; what it answers is a value that can be told, or None."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import astuple
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_systems import MACHINES, Files, recorded

from edge_sdk.probe.accelerator import measure_accelerator
from edge_sdk.probe.bandwidth import last_level_cache_bytes
from edge_sdk.probe.battery import measure_battery
from edge_sdk.probe.cache import RateCache
from edge_sdk.probe.clock import measure_clock
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.processor import measure_cpu_quota, measure_processor
from edge_sdk.probe.rates import Rates
from edge_sdk.probe.report import Probe
from edge_sdk.probe.source import source
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature, measure_throttling

SOURCES: dict[str, Callable[..., Any]] = {
    "processor": measure_processor,
    "clock": measure_clock,
    "temperature_celsius": measure_temperature,
    "is_throttled": measure_throttling,
    "memory": measure_memory,
    "battery": measure_battery,
    "network": measure_network,
    "accelerator": measure_accelerator,
}
PATHS = sorted({path for files, _ in MACHINES.values() for path in files if not path.endswith("/")})
# What such files are made of, and what breaks who reads them.
PIECES = (
    *(
        "0",
        "-1",
        "1",
        "9" * 30,
        "9" * 5000,
        "1e999",
        "nan",
        "max",
        "\u0663",
        "0x",
        "00000000",
        "0" * 32,
        "ffff",
    ),
    *(" ", "\n", "\t", "\0", ":", "/", "..", "=", "kB", "\x1b[2J", "eth0", "0003", "0::/", "memory", "cpu"),
    *("flags : avx", "Features : asimd", "model name :", "MemTotal:", "MemAvailable:", "Battery", "Model:"),
)
CONTENTS = st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(
    str.encode
)


def assert_told(system: System) -> None:
    """Every source answers a value that can be told, or None; without the net below it, which none needs."""
    told = {name: measure.__wrapped__(system) for name, measure in SOURCES.items()}  # type: ignore[attr-defined]
    told |= {"taken_at": datetime.now(UTC), "sdk_version": "0", "disk_free_bytes": None}
    probe = Probe(**told, rates=Rates(*[None] * 6))
    assert json.loads(probe.model_dump_json())["processor"]["cores"] >= 1
    assert last_level_cache_bytes(system) != 0
    assert probe.memory is None or probe.memory.available_bytes >= 0
    assert probe.processor is not None
    quota = measure_cpu_quota.__wrapped__(system)  # type: ignore[attr-defined]
    assert quota is None or 0 < quota < math.inf
    assert probe.clock is None or all(hertz is None or 0 < hertz < 1e11 for hertz in astuple(probe.clock))
    assert probe.temperature_celsius is None or -40 <= probe.temperature_celsius <= 151
    for word in (probe.processor.name, probe.accelerator and probe.accelerator.name):
        assert word is None or (word.isprintable() and len(word) <= 128)


@pytest.mark.parametrize("machine", MACHINES)
def test_any_word_of_a_machine_may_be_another(tmp_path: Path, machine: str) -> None:
    files, architecture = MACHINES[machine]
    system = recorded(tmp_path, files, machine=architecture)
    for path, content in files.items():
        if path.endswith("/"):
            continue
        whole = content if isinstance(content, bytes) else content.encode()
        for word, piece in product(sorted(set(whole.split())), (b"", b"0", b"-1", b"9" * 30, b"nan", b"a:b")):
            (tmp_path / path).write_bytes(whole.replace(word, piece, 1))
            assert_told(system)
        (tmp_path / path).write_bytes(whole)


@settings(deadline=None, max_examples=100)  # the machine may be busy
@given(
    machine=st.sampled_from([*MACHINES]),
    garbage=st.dictionaries(st.sampled_from(PATHS), CONTENTS, min_size=1, max_size=25),
    architecture=st.text(max_size=40),
)
def test_files_of_any_content_are_read_as_values_or_as_unknown(
    machine: str, garbage: Files, architecture: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert_told(recorded(Path(folder), MACHINES[machine][0], garbage, machine=architecture))


def test_source_that_meets_what_nobody_thought_of_answers_unknown() -> None:
    @source
    def broken(number: int) -> float:
        return 1 / number

    assert broken(2) == 0.5
    assert broken(0) is None
    assert broken.__name__ == "broken"


@settings(deadline=None, max_examples=150)
@given(
    content=CONTENTS
    | st.builds(json.dumps, st.recursive(st.none() | st.floats() | st.text(), st.lists)).map(str.encode)
)
def test_cache_of_any_content_is_no_cache_or_one(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rates.json"
        path.write_bytes(content)
        cache = RateCache(path, clock=lambda: 100.0)
        assert cache.recall("matmul", "here") is None
        cache.keep("matmul", "here", 5.0)
        kept = cache.recall("matmul", "here")
        assert kept is not None
        assert kept.per_second == 5.0
