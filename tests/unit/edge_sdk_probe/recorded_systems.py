"""Machines as their kernels tell of them: the files that a probe reads, by path below a folder.

Written after the kernel's documentation and published listings of such machines, not copied from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_sdk.probe.system import System

MIB = 2**20
Files = Mapping[str, str | bytes]


def recorded(folder: Path, *files: Files, machine: str = "x86_64", is_here: bool = False) -> System:
    """A machine of these files alone; a path that ends in a slash is an empty folder."""
    for path, content in {path: content for more in files for path, content in more.items()}.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return System(folder / "proc", folder / "sys", machine, is_here)


def routes(*lines: str) -> str:
    heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    return "\n".join([heading, *("\t".join(line.split()) for line in lines)])


def _x86(cores: int, model: str, flags: str) -> str:
    core = (
        "processor\t: {}\nvendor_id\t: GenuineIntel\nmodel name\t: " + model + "\nflags\t\t: " + flags + "\n"
    )
    return "\n".join(core.format(number) for number in range(cores))


def _arm(cores: int, features: str, end: str = "") -> str:
    core = f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    return "\n".join(f"processor\t: {number}\n{core}" for number in range(cores)) + end


# A laptop on its battery, hot enough to be slowed down, on Wi-Fi; its mouse has a battery, too.
LAPTOP: Files = {
    "proc/cpuinfo": _x86(
        2,
        "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz",
        "fpu vme sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx512f avx512bw avx512vl avx512_vnni",
    ),
    "proc/meminfo": "MemTotal:       16128000 kB\nMemFree:         1000000 kB\nMemAvailable:    8064000 kB",
    "proc/self/cgroup": "0::/user.slice/user-1000.slice",
    "proc/net/route": routes(
        "docker0  000011AC 00000000 0001 0 0 0   0000FFFF 0 0 0",
        "wlp3s0   00000000 0100A8C0 0003 0 0 600 00000000 0 0 0",
        "enp2s0   00000000 0100A8C0 0003 0 0 700 00000000 0 0 0",
    ),
    "sys/class/net/wlp3s0/uevent": "DEVTYPE=wlan\nINTERFACE=wlp3s0\nIFINDEX=3",
    "sys/class/net/wlp3s0/type": "1",
    "sys/class/net/wlp3s0/address": "aa:bb:cc:dd:ee:ff",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": "0",
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/power_supply/BAT0/capacity": "71",
    "sys/class/power_supply/BAT0/serial_number": "SECRET-BATTERY",
    "sys/class/power_supply/hidpp_battery_0/type": "Battery",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device",
    "sys/class/power_supply/hidpp_battery_0/status": "Charging",
    "sys/class/power_supply/hidpp_battery_0/capacity": "5",
    "sys/class/thermal/thermal_zone0/type": "acpitz",
    "sys/class/thermal/thermal_zone0/temp": "99000",
    "sys/class/thermal/thermal_zone7/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone7/temp": "93500",
    "sys/class/thermal/cooling_device0/type": "Processor",
    "sys/class/thermal/cooling_device0/cur_state": "1",
    "sys/class/thermal/cooling_device9/type": "intel_powerclamp",
    "sys/class/thermal/cooling_device9/cur_state": "-1",
    "sys/class/hwmon/hwmon4/name": "coretemp",
    "sys/class/hwmon/hwmon4/temp1_input": "94000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "4200000",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "4200000",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1200000",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq": "4200000",
    "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": "4200000",
    "sys/devices/system/cpu/cpu0/cache/index0/size": "48K",
    "sys/devices/system/cpu/cpu0/cache/index3/size": "8192K",
}

# A Raspberry Pi 4 whose firmware holds it at its soft temperature limit; what is above bit 15 was once so.
PI: Files = {
    "proc/cpuinfo": _arm(
        4,
        "fp asimd evtstrm crc32 cpuid",
        "\nHardware\t: BCM2835\nRevision\t: c03114\nSerial\t\t: 10000000deadbeef\n"
        "Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    ),
    "proc/meminfo": "MemTotal:        3884000 kB\nMemFree:          100000 kB\nMemAvailable:    3000000 kB",
    "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": b"raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/device-tree/serial-number": b"10000000deadbeef\0",
    "proc/net/route": routes("wlan0 00000000 0100A8C0 0003 0 0 600 00000000 0 0 0"),
    "sys/class/net/wlan0/uevent": "INTERFACE=wlan0\nIFINDEX=3",
    "sys/class/net/wlan0/type": "1",
    "sys/class/net/wlan0/phy80211/": "",
    "sys/class/power_supply/": "",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "80842",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device0/cur_state": "0",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "80008",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1000000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1800000",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000",
}

# A Jetson Orin Nano in a power mode that keeps its cores at 1.5 GHz, on a cable; one sensor is off.
JETSON: Files = {
    "proc/cpuinfo": _arm(
        6,
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    "proc/meminfo": "MemTotal:        7800000 kB\nMemFree:         2000000 kB\nMemAvailable:    5200000 kB",
    "proc/device-tree/model": b"NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/device-tree/serial-number": b"1421000000000\0",
    "proc/net/route": routes("enP8p1s0 00000000 0100A8C0 0003 0 0 100 00000000 0 0 0"),
    "sys/class/net/enP8p1s0/type": "1",
    "sys/class/net/enP8p1s0/device/": "",
    "sys/class/power_supply/": "",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "48218",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "52500",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone2/temp": "-256000",
    "sys/class/thermal/thermal_zone8/type": "tj-thermal",
    "sys/class/thermal/thermal_zone8/temp": "50031",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "2",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0",
    "sys/class/thermal/cooling_device1/cur_state": "0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1984000",
    "sys/devices/system/cpu/cpu0/cache/index3/size": "2048K",
}

# A container on a server with a card: 512 MiB, one core and a half, an interface without hardware behind it.
CONTAINER: Files = {
    "proc/cpuinfo": _x86(4, "AMD EPYC 7B13", "fpu sse sse2 fma sse4_2 avx f16c avx2"),
    "proc/meminfo": "MemTotal:       65536000 kB\nMemFree:        30000000 kB\nMemAvailable:   40000000 kB",
    "proc/self/cgroup": "0::/",
    "proc/self/limits": "Max data size             1073741824           unlimited            bytes",
    "proc/self/status": "VmSize:\t  204800 kB\nVmData:\t  102400 kB",
    "proc/net/route": routes("eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0"),
    "proc/driver/nvidia/gpus/0000:01:00.0/information": (
        "Model: \t\t NVIDIA L4\nIRQ:   \t\t 139\nGPU UUID: \t GPU-deadbeef-0000-0000-0000-000000000000\n"
        "Video BIOS: \t 95.04.29.00.06\nBus Location: \t 0000:01:00.0"
    ),
    "sys/class/net/eth0/type": "1",
    "sys/class/net/eth0/uevent": "INTERFACE=eth0\nIFINDEX=2",
    "sys/fs/cgroup/memory.max": str(512 * MIB),
    "sys/fs/cgroup/memory.current": str(200 * MIB),
    "sys/fs/cgroup/memory.stat": f"anon 1000\ninactive_file {50 * MIB}",
    "sys/fs/cgroup/cpu.max": "150000 100000",
    "sys/devices/system/cpu/cpu0/cache/index3/size": "256M",
}

MACHINES: dict[str, tuple[Files, str]] = {
    "laptop": (LAPTOP, "x86_64"),
    "pi": (PI, "aarch64"),
    "jetson": (JETSON, "aarch64"),
    "container": (CONTAINER, "x86_64"),
}
