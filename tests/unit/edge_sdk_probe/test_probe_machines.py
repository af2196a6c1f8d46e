"""What is read off the files of four machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_systems import CONTAINER, JETSON, LAPTOP, MACHINES, MIB, PI, recorded

from edge_sdk.probe.accelerator import Accelerator, measure_accelerator
from edge_sdk.probe.bandwidth import last_level_cache_bytes
from edge_sdk.probe.battery import Battery, measure_battery
from edge_sdk.probe.clock import Clock, measure_clock
from edge_sdk.probe.memory import Memory, measure_memory
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.processor import Processor, measure_processor, usable_cores
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature, measure_throttling

CORES = len(usable_cores())  # no file says which of its cores a process may run on
ON_A_LINE = Battery(percent=None, is_charging=False, is_on_external_power=True)


def test_laptop_on_battery(tmp_path: Path) -> None:
    laptop = recorded(tmp_path, LAPTOP)
    assert measure_processor(laptop) == Processor(
        "x86_64",
        "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz",
        ("avx", "avx2", "avx512_vnni", "avx512bw", "avx512f", "avx512vl", "f16c", "fma", "sse4_2"),
        CORES,
        None,
    )
    assert measure_memory(laptop) == Memory(16_128_000 * 1024, 8_064_000 * 1024)
    assert measure_battery(laptop) == Battery(71.0, is_charging=False, is_on_external_power=False)
    assert measure_temperature(laptop) == 94.0  # not the 99 of a sensor that is not the processor's
    assert measure_throttling(laptop) is True
    assert measure_clock(laptop) == Clock(2_400_000_000, 4_200_000_000, 4_200_000_000)
    assert measure_network(laptop) == "wifi"
    assert measure_accelerator(laptop) == Accelerator("none")
    assert last_level_cache_bytes(laptop) == 8 * MIB


def test_raspberry_pi_at_its_temperature_limit(tmp_path: Path) -> None:
    pi = recorded(tmp_path, PI, machine="aarch64")
    assert measure_processor(pi) == Processor(
        "aarch64", "Raspberry Pi 4 Model B Rev 1.4", ("asimd",), CORES, None
    )
    assert measure_memory(pi) == Memory(3_884_000 * 1024, 3_000_000 * 1024)
    assert measure_battery(pi) == ON_A_LINE
    assert measure_temperature(pi) == pytest.approx(80.842)
    assert measure_throttling(pi) is True  # by its firmware, though cpufreq cools nothing
    assert measure_network(pi) == "wifi"
    assert measure_accelerator(pi) == Accelerator("none")
    assert last_level_cache_bytes(pi) is None


def test_jetson_in_a_low_power_mode(tmp_path: Path) -> None:
    jetson = recorded(tmp_path, JETSON, machine="aarch64")
    assert measure_processor(jetson) == Processor(
        "aarch64",
        "NVIDIA Jetson Orin Nano Developer Kit",
        ("asimd", "asimddp", "asimdhp", "fphp"),
        CORES,
        None,
    )
    assert measure_memory(jetson) == Memory(7_800_000 * 1024, 5_200_000 * 1024)
    assert measure_battery(jetson) == ON_A_LINE
    assert measure_temperature(jetson) == pytest.approx(
        50.031
    )  # the junction's, which is the hottest of its own
    assert measure_throttling(jetson) is False  # the fan runs, and the mode was set
    assert measure_clock(jetson) == Clock(729_600_000, 1_510_400_000, 1_984_000_000)
    assert measure_network(jetson) == "ethernet"
    assert measure_accelerator(jetson) == Accelerator(
        "tegra", "NVIDIA Jetson Orin Nano Developer Kit", shares_memory=True
    )


def test_container_with_limits(tmp_path: Path) -> None:
    container = recorded(tmp_path, CONTAINER)
    processor = measure_processor(container)
    assert processor is not None
    assert (processor.name, processor.quota_cores) == ("AMD EPYC 7B13", 1.5)
    # 512 MiB allowed, 200 used, of which 50 are cached file pages.
    assert measure_memory(container) == Memory(512 * MIB, 362 * MIB)
    assert measure_battery(container) is None
    assert measure_temperature(container) is None
    assert measure_throttling(container) is None
    assert measure_clock(container) is None
    assert measure_network(container) == "ethernet"
    assert measure_accelerator(container) == Accelerator("nvidia", "NVIDIA L4", shares_memory=False)
    assert last_level_cache_bytes(container) == 256 * MIB


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_that_names_a_single_device_is_read(tmp_path: Path, machine: str) -> None:
    files, architecture = MACHINES[machine]
    system = recorded(tmp_path, files, machine=architecture)
    told = repr(
        (
            measure_processor(system),
            measure_battery(system),
            measure_network(system),
            measure_accelerator(system),
        )
    )
    for secret in ("SECRET", "deadbeef", "1421000000000", "aa:bb", "wlp3s0", "0000:01"):
        assert secret not in told


def test_system_without_a_kernel_of_this_kind_tells_nothing(tmp_path: Path) -> None:
    absent = System(tmp_path / "proc", tmp_path / "sys", "", is_here=False)
    assert measure_processor(absent) == Processor(None, None, None, CORES, None)
    for ask in (measure_memory, measure_battery, measure_temperature, measure_throttling, measure_clock):
        assert ask(absent) is None
    for ask in (measure_network, measure_accelerator):
        assert ask(absent) is None
