"""The three kinds of device that the demo simulates, as capability reports given by hand."""

from __future__ import annotations

from typing import Final

from hetlora.messages.device import CapabilityReport

_MIB: Final = 1024 * 1024
_GIGA: Final = 10**9

# Round figures for three classes of machine, not measurements of any product. The traffic that each allows
# itself sets the ranks apart: with a model of this size, memory and time hardly grow with the rank.
PROFILES: Final = {
    "board": CapabilityReport(
        source="given",
        cores=4,
        memory_total_bytes=1024 * _MIB,
        memory_available_bytes=768 * _MIB,
        matmul_flops_per_second=16.0 * _GIGA,
        disk_free_bytes=4 * _GIGA,
        traffic_bytes_per_round=1_000_000,
    ),
    "phone": CapabilityReport(
        source="given",
        cores=8,
        memory_total_bytes=4096 * _MIB,
        memory_available_bytes=1200 * _MIB,
        matmul_flops_per_second=30.0 * _GIGA,
        disk_free_bytes=16 * _GIGA,
        traffic_bytes_per_round=2_500_000,
    ),
    "workstation": CapabilityReport(
        source="given",
        cores=16,
        memory_total_bytes=32768 * _MIB,
        memory_available_bytes=16384 * _MIB,
        matmul_flops_per_second=80.0 * _GIGA,
        disk_free_bytes=200 * _GIGA,
    ),
}


def profile_of(device_index: int) -> tuple[str, CapabilityReport]:
    """Kinds in turn: half of a fleet are boards, a quarter phones, a quarter workstations."""
    kind = ("board", "phone", "board", "workstation")[device_index % 4]
    return kind, PROFILES[kind]
