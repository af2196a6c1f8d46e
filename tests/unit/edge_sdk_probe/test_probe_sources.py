"""Cases of single sources that the four machines do not have."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from recorded_systems import MIB, recorded, routes

from edge_sdk.probe.bandwidth import block_bytes
from edge_sdk.probe.battery import Battery, from_psutil, measure_battery
from edge_sdk.probe.disk import existing, measure_free_disk, measure_write_rate
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.network import default_interface, kind_by_name, measure_network
from edge_sdk.probe.processor import architecture_of, measure_cpu_quota, measure_processor
from edge_sdk.probe.temperature import measure_temperature, measure_throttling

CGROUP = "proc/self/cgroup"


def _free(tmp_path: Path, **files: object) -> int:
    """Free memory on this machine, under recorded control groups."""
    named = {path: str(content) for path, content in files.items()}
    memory = measure_memory(recorded(tmp_path, named, is_here=True))
    assert memory is not None
    return memory.available_bytes


def test_memory_limit_of_version_2_holds(tmp_path: Path) -> None:
    # 64 MiB allowed, 40 used, of which 10 are cached file pages: 64 - (40 - 10) = 34 MiB free.
    free = _free(
        tmp_path,
        **{
            CGROUP: "0::/app.slice",
            "sys/fs/cgroup/app.slice/memory.max": 64 * MIB,
            "sys/fs/cgroup/app.slice/memory.current": 40 * MIB,
            "sys/fs/cgroup/app.slice/memory.stat": f"anon 5\ninactive_file {10 * MIB}",
        },
    )
    assert free == 34 * MIB


def test_memory_limit_of_version_1_holds(tmp_path: Path) -> None:
    free = _free(
        tmp_path,
        **{
            CGROUP: "3:cpu:/app\n2:memory:/app\n0::/",
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": 64 * MIB,
            "sys/fs/cgroup/memory/app/memory.usage_in_bytes": 40 * MIB,
            "sys/fs/cgroup/memory/app/memory.stat": f"inactive_file 1\ntotal_inactive_file {10 * MIB}",
        },
    )
    assert free == 34 * MIB


def test_memory_limit_of_a_group_above_holds_too(tmp_path: Path) -> None:
    free = _free(
        tmp_path,
        **{
            CGROUP: "0::/app.slice/app.service",
            "sys/fs/cgroup/app.slice/memory.max": 64 * MIB,
            "sys/fs/cgroup/app.slice/memory.current": 63 * MIB,
            "sys/fs/cgroup/app.slice/app.service/memory.max": "max",
            "sys/fs/cgroup/app.slice/app.service/memory.current": 1,
        },
    )
    assert free == MIB


def test_group_beyond_its_memory_has_nothing_free(tmp_path: Path) -> None:
    limits = {"sys/fs/cgroup/memory.max": 64 * MIB, "sys/fs/cgroup/memory.current": 65 * MIB}
    assert _free(tmp_path, **{CGROUP: "0::/", **limits}) == 0


LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max data size             {data:<20} unlimited            bytes
Max resident set          1048576              unlimited            bytes
Max address space         {space:<20} unlimited            bytes"""


@pytest.mark.parametrize(
    ("data", "space", "free"),
    [
        (65 * MIB, "unlimited", 20 * MIB),  # 40 MiB of data are held: 0.8 of 25 MiB can be used
        ("unlimited", 100 * MIB, 16 * MIB),  # 80 MiB of addresses, files among them
        (65 * MIB, 100 * MIB, 16 * MIB),
        (32 * MIB, "unlimited", 0),
    ],
)
def test_limit_of_the_process_itself_holds(
    tmp_path: Path, data: int | str, space: int | str, free: int
) -> None:
    files = {
        "proc/self/limits": LIMITS.format(data=data, space=space),
        "proc/self/status": f"VmPeak:\t 90000 kB\nVmSize:\t {80 * 1024} kB\nVmData:\t {40 * 1024} kB",
    }
    assert _free(tmp_path, **files) == free


def test_the_least_of_several_limits_holds(tmp_path: Path) -> None:
    files = {
        CGROUP: "0::/",
        "sys/fs/cgroup/memory.max": 64 * MIB,
        "sys/fs/cgroup/memory.current": 54 * MIB,
        "proc/self/limits": LIMITS.format(data=64 * MIB, space="unlimited"),
        "proc/self/status": f"VmData:\t {40 * 1024} kB",
    }
    assert _free(tmp_path, **files) == 10 * MIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_group_without_a_limit_leaves_the_machines_memory(tmp_path: Path, limit: str) -> None:
    files = {CGROUP: "0::/", "sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory.current": "1"}
    memory = measure_memory(recorded(tmp_path, files, is_here=True))
    assert memory is not None
    assert memory.total_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({CGROUP: "0::/a", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 0.5),
        (
            {
                CGROUP: "0::/a/b",
                "sys/fs/cgroup/a/cpu.max": "200000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
            },
            2.0,
        ),
        (
            {
                CGROUP: "4:cpu,cpuacct:/app",
                "sys/fs/cgroup/cpu/app/cpu.cfs_quota_us": "25000",
                "sys/fs/cgroup/cpu/app/cpu.cfs_period_us": "100000",
            },
            0.25,
        ),
        ({CGROUP: "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                CGROUP: "4:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({CGROUP: "0::/../outside", "sys/fs/outside/cpu.max": "1 1"}, None),
        ({}, None),
    ],
    ids=[
        "version 2",
        "strictest of two",
        "version 1",
        "no limit",
        "no limit of version 1",
        "outside",
        "none",
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    assert measure_cpu_quota(recorded(tmp_path, files)) == cores


def test_only_what_all_cores_understand_counts(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": "Features\t: fp asimd asimddp i8mm\n\nFeatures\t: fp asimd asimddp"}
    processor = measure_processor(recorded(tmp_path, files, machine="arm64"))
    assert processor is not None
    assert (processor.architecture, processor.instruction_sets) == ("aarch64", ("asimd", "asimddp"))


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [("AMD64", "x86_64"), ("arm64", "aarch64"), ("armv7l", "armv7l"), ("riscv64", "riscv64"), ("", None)],
)
def test_architecture_has_one_name(machine: str, architecture: str | None) -> None:
    assert architecture_of(machine) == architecture


SUPPLY = "sys/class/power_supply"


@pytest.mark.parametrize(
    ("files", "battery"),
    [
        ({"BAT0/status": "Charging", "AC/online": "1"}, Battery(40.0, True, True)),
        ({"BAT0/status": "Full", "AC/online": "1"}, Battery(40.0, False, True)),
        ({"BAT0/status": "Not charging"}, Battery(40.0, False, True)),
        # A charger that is too weak for what runs.
        ({"BAT0/status": "Discharging", "AC/online": "1"}, Battery(40.0, False, True)),
        ({"BAT0/status": "Discharging"}, Battery(40.0, False, False)),
        ({"BAT0/status": "Unknown", "AC/online": "0"}, Battery(40.0, None, False)),
        ({"BAT0/status": "Unknown"}, Battery(40.0, None, None)),
        (
            {
                "BAT0/status": "Unknown",
                "BAT1/type": "Battery",
                "BAT1/status": "Charging",
                "BAT1/capacity": "60",
            },
            Battery(50.0, True, True),
        ),
        ({"BAT0/capacity": "400", "BAT0/status": "Discharging"}, Battery(None, False, False)),
    ],
    ids=["charging", "full", "kept", "weak line", "empties", "off", "says nothing", "two", "no percent"],
)
def test_battery(tmp_path: Path, files: dict[str, str], battery: Battery) -> None:
    usual = {"BAT0/type": "Battery", "BAT0/capacity": "40"}
    if any(path.startswith("AC/") for path in files):
        usual["AC/type"] = "Mains"
    there = {f"{SUPPLY}/{path}": content for path, content in (usual | files).items()}
    assert measure_battery(recorded(tmp_path, there)) == battery


@pytest.mark.parametrize(
    ("percent", "is_plugged", "battery"),
    [
        (80, True, Battery(80, True, True)),
        (100, True, Battery(100, False, True)),
        (80, False, Battery(80, False, False)),
        (80, None, Battery(80, None, None)),
    ],
)
def test_battery_as_psutil_tells_it(percent: float, is_plugged: bool | None, battery: Battery) -> None:
    assert from_psutil(percent, is_plugged) == battery


def test_any_sensor_does_where_the_processor_has_none(tmp_path: Path) -> None:
    zones = {"thermal_zone0/type": "acpitz", "thermal_zone0/temp": "41000"}
    files = {f"sys/class/thermal/{path}": content for path, content in zones.items()}
    assert measure_temperature(recorded(tmp_path, files)) == 41.0


def test_driver_without_a_thermal_zone_is_asked(tmp_path: Path) -> None:
    files = {"sys/class/hwmon/hwmon0/name": "k10temp", "sys/class/hwmon/hwmon0/temp1_input": "55250"}
    assert measure_temperature(recorded(tmp_path, files)) == 55.25


@pytest.mark.parametrize(
    ("bits", "is_throttled"), [("0", False), ("50000", False), ("50005", True), ("1", True)]
)
def test_firmware_of_a_raspberry_pi_says_what_is_now(tmp_path: Path, bits: str, is_throttled: bool) -> None:
    path = "sys/devices/platform/soc/soc:firmware/get_throttled"
    assert measure_throttling(recorded(tmp_path, {path: bits})) is is_throttled


@pytest.mark.parametrize(
    ("line", "files", "kind"),
    [
        ("wwan0 00000000 0 0003 0 0 0 00000000", {"wwan0/uevent": "DEVTYPE=wwan"}, "cellular"),
        ("rmnet_data0 00000000 0 0001 0 0 0 00000000", {}, "cellular"),
        ("usb9 00000000 0 0003 0 0 0 00000000", {"usb9/uevent": "DEVTYPE=wlan"}, "wifi"),
        ("usb9 00000000 0 0003 0 0 0 00000000", {"usb9/type": "1", "usb9/device/": ""}, "ethernet"),
        ("usb9 00000000 0 0003 0 0 0 00000000", {"usb9/type": "1"}, "other"),
        ("wg0 00000000 0 0003 0 0 0 00000000", {"wg0/type": "65534"}, "other"),
        ("odd9 00000000 0 0003 0 0 0 00000000", {}, None),
        ("eth0 00000000 0 0002 0 0 0 00000000", {}, None),  # down
        ("eth0 00000000 0 0201 0 0 0 00000000", {}, None),  # leads nowhere
        ("eth0 0000A8C0 0 0001 0 0 0 0000FFFF", {}, None),  # no default route
        ("../.. 00000000 0 0003 0 0 0 00000000", {}, None),
    ],
)
def test_network_kind(tmp_path: Path, line: str, files: dict[str, str], kind: str | None) -> None:
    there = {f"sys/class/net/{path}": content for path, content in files.items()}
    assert measure_network(recorded(tmp_path, there, {"proc/net/route": routes(line)})) == kind


def test_route_of_ipv6_does_where_there_is_none_of_ipv4(tmp_path: Path) -> None:
    nowhere = f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200       lo"
    there = f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}1 00000400 00000002 00000000 00000003   wlan0"
    system = recorded(tmp_path, {"proc/net/route": routes(), "proc/net/ipv6_route": f"{nowhere}\n{there}"})
    assert default_interface(system) == "wlan0"


@pytest.mark.parametrize(
    ("interface", "kind"),
    [
        ("Wi-Fi", "wifi"),
        ("WLAN 2", "wifi"),
        ("Ethernet 2", "ethernet"),
        ("Cellular", "cellular"),
        ("pdp_ip0", "cellular"),
        ("utun3", "other"),
        ("en0", None),
        (None, None),
    ],
)
def test_name_of_an_interface_where_no_file_tells(interface: str | None, kind: str | None) -> None:
    assert kind_by_name(interface) == kind


@pytest.mark.parametrize(
    ("cache", "available", "size"),
    [
        (1 * MIB, 8192 * MIB, 4 * MIB),
        (3 * MIB, 8192 * MIB, 6 * MIB),
        (None, 8192 * MIB, 16 * MIB),
        (480 * MIB, 8192 * MIB, 16 * MIB),  # of a server's cache no block is beyond
        (8 * MIB, 128 * MIB, 8 * MIB),  # a sixteenth of what is free
        (8 * MIB, 63 * MIB, None),
        (8 * MIB, None, 16 * MIB),
    ],
)
def test_block_passes_the_cache_and_leaves_room(
    cache: int | None, available: int | None, size: int | None
) -> None:
    assert block_bytes(cache, available) == size


def test_write_rate_is_that_of_the_best_part(tmp_path: Path) -> None:
    # Deadline at 10; parts of 4 s and 2 s, then one that ends beyond it.
    ticks = iter([0.0, 0.0, 4.0, 4.0, 6.0, 6.0, 11.0])
    assert measure_write_rate(tmp_path, seconds=10, timer=lambda: next(ticks)) == MIB / 2
    assert list(tmp_path.iterdir()) == []


def test_slow_disk_is_written_to_once(tmp_path: Path) -> None:
    ticks = iter([0.0, 0.0, 4.0])
    assert measure_write_rate(tmp_path, seconds=1, timer=lambda: next(ticks)) == MIB / 4


def test_disk_of_a_folder_that_is_not_there_yet_is_that_above(tmp_path: Path) -> None:
    assert existing(tmp_path / "not" / "yet") == tmp_path
    assert measure_free_disk(tmp_path / "not" / "yet") is None
