"""What the Python probe reads off the machines of `machines.json`, as `device_answers.py` writes it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_sdk.probe.bandwidth import block_bytes, last_level_cache_bytes
from edge_sdk.probe.battery import measure_battery
from edge_sdk.probe.bursts import good_of
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.processor import architecture_of, measure_cpu_quota
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature, measure_throttling

Fields = dict[str, Any]


def probed(machine: Fields) -> Fields:
    """What is read off the files of one machine."""
    with TemporaryDirectory() as folder:
        for path, content in machine["files"].items():
            target = Path(folder, path)
            (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
            if not path.endswith("/"):
                target.write_bytes(content.encode())
        system = System(Path(folder, "proc"), Path(folder, "sys"), machine["machine"], is_here=False)
        memory, battery = measure_memory(system), measure_battery(system)
        cache = last_level_cache_bytes(system)
        return {
            "architecture": architecture_of(machine["machine"]),
            "quota_cores": measure_cpu_quota(system),
            "memory": None
            if memory is None
            else {"total_bytes": memory.total_bytes, "available_bytes": memory.available_bytes},
            "battery": None
            if battery is None
            else {
                "percent": battery.percent,
                "is_charging": battery.is_charging,
                "is_on_external_power": battery.is_on_external_power,
            },
            "temperature_celsius": measure_temperature(system),
            "is_throttled": measure_throttling(system),
            "network": measure_network(system),
            "last_level_cache_bytes": cache,
            "block_bytes": block_bytes(cache, None if memory is None else memory.available_bytes),
        }


def answer_machines(file: Fields) -> Fields:
    return {
        "good_of": [one | {"seconds": good_of(one["times"])} for one in file["good_of"]],
        "machines": [machine | {"expected": probed(machine)} for machine in file["machines"]],
    }
