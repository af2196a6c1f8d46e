"""All that was found out about a device at one moment, and what of it the service is told."""

from __future__ import annotations

import math
from typing import TypeVar

from edge_sdk.probe.accelerator import Accelerator
from edge_sdk.probe.battery import Battery
from edge_sdk.probe.clock import Clock
from edge_sdk.probe.memory import Memory
from edge_sdk.probe.network import NetworkKind
from edge_sdk.probe.processor import Processor
from edge_sdk.probe.rates import Rates
from hetlora.errors import UnavailableError
from hetlora.messages.common import Count, Message, Timestamp
from hetlora.messages.device import CapabilityReport

Known = TypeVar("Known")


class Probe(Message):
    """What a device can do, and how it is just now; None is unknown. Nothing in it names the device."""

    taken_at: Timestamp
    sdk_version: str
    processor: Processor | None
    clock: Clock | None
    temperature_celsius: float | None
    is_throttled: bool | None
    memory: Memory | None
    disk_free_bytes: Count | None
    battery: Battery | None
    network: NetworkKind | None
    accelerator: Accelerator | None
    rates: Rates

    def report(self, *, traffic_bytes_per_round: int | None = None) -> CapabilityReport:
        """What the planner reckons with and the service is told.

        A CPU quota counts as so many whole cores fewer, one of less than a core as a slower one. Where the
        model's own products go slower than the general ones, theirs is the rate: those of a few rows wait for
        memory. Rates that only people read have two digits: with all of theirs they might name a device.

        Raises:
            UnavailableError: nothing is known of something that no plan can do without.
        """
        processor = _known(self.processor, "processor")
        memory = _known(self.memory, "memory")
        general = _known(self.rates.matmul_flops_per_second, "rate of matrix products")
        quota = math.inf if processor.quota_cores is None else processor.quota_cores
        return CapabilityReport(
            source="measured",
            cores=max(1, math.floor(min(processor.cores, quota))),
            memory_total_bytes=memory.total_bytes,
            memory_available_bytes=memory.available_bytes,
            matmul_flops_per_second=min(general, self.rates.model_matmul_flops_per_second or general)
            * min(1.0, quota),
            disk_free_bytes=_known(self.disk_free_bytes, "free disk"),
            traffic_bytes_per_round=traffic_bytes_per_round,
            architecture=processor.architecture,
            accelerator=self.accelerator and self.accelerator.kind,
            network=self.network,
            memory_bandwidth_bytes_per_second=_two_digits(self.rates.memory_bandwidth_bytes_per_second),
            download_bytes_per_second=_two_digits(self.rates.download_bytes_per_second),
        )


def _known(value: Known | None, what: str) -> Known:
    if value is None:
        raise UnavailableError(
            f"the {what} of this device is unknown",
            got="no answer of the system",
            expected="capabilities by hand",
        )
    return value


def _two_digits(rate: float | None) -> float | None:
    return None if rate is None else float(f"{rate:.1e}")
