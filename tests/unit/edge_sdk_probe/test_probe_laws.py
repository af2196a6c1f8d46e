"""Whatever a kernel's files hold, a source answers; what it answers is a value that can be told, or None."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from edge_sdk.probe.processor import measure_processor
from edge_sdk.probe.rates import Rates
from edge_sdk.probe.report import Probe
from edge_sdk.probe.source import source
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
PIECES = st.sampled_from(
    [
        *(
            "0",
            "-1",
            "1",
            "100000",
            "9" * 30,
            "-" + "9" * 30,
            "9" * 5000,
            "1e999",
            "nan",
            "max",
            "٣",
            "0x",
            "00000000",
        ),
        *(" ", "\n", "\t", "\0", ":", "/", "..", "=", "kB", "\x1b[2J", "0" * 32, "eth0", "ffff", "0003"),
        *(
            "0::/",
            "memory",
            "cpu",
            "flags : avx",
            "Features : asimd",
            "model name :",
            "MemTotal:",
            "MemAvailable:",
        ),
        *(
            "Battery",
            "Discharging",
            "Processor",
            "nvidia,tegra",
            "Model:",
            "DEVTYPE=wlan",
            "total_inactive_file ",
        ),
    ]
)
CONTENTS = st.binary(max_size=60) | st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode())
GARBAGE = st.dictionaries(st.sampled_from(PATHS), CONTENTS, min_size=1, max_size=25)


@settings(deadline=None, max_examples=150)  # the machine may be busy
@given(garbage=GARBAGE, machine=st.sampled_from([*MACHINES, ""]), architecture=st.text(max_size=40))
def test_garbage_is_read_as_a_value_or_as_unknown(garbage: Files, machine: str, architecture: str) -> None:
    files = MACHINES[machine][0] if machine else {}
    with tempfile.TemporaryDirectory() as folder:
        system = recorded(Path(folder), files, garbage, machine=architecture)
        # Each without the net below it: none of its parsers needs that.
        told = {name: measure.__wrapped__(system) for name, measure in SOURCES.items()}  # type: ignore[attr-defined]
        assert last_level_cache_bytes(system) != 0
    told |= {"taken_at": datetime.now(UTC), "sdk_version": "0", "disk_free_bytes": None}
    probe = Probe(**told, rates=Rates(*[None] * 6))
    assert json.loads(probe.model_dump_json())["processor"]["cores"] >= 1
    memory = told["memory"]
    assert memory is None or memory.available_bytes >= 0
    quota = told["processor"].quota_cores
    assert quota is None or quota > 0
    for word in (told["processor"].name, told["accelerator"] and told["accelerator"].name):
        assert word is None or (word.isprintable() and len(word) <= 128)


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
