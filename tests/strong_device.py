"""What a device reports that has room for every rank of the small models of the tests."""

from __future__ import annotations

from hetlora.messages.device import CapabilityReport

STRONG = CapabilityReport(
    source="given",
    cores=4,
    memory_total_bytes=8 * 2**30,
    memory_available_bytes=4 * 2**30,
    matmul_flops_per_second=1e11,
    disk_free_bytes=2**30,
)
