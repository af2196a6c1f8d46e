"""What of a probe the planner reckons with and the service is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from recorded_systems import CONTAINER, recorded

from edge_sdk.planning.forecast import EXTRA_CORE_SHARE, TRAINING_EFFICIENCY, training_rate
from edge_sdk.probe.accelerator import Accelerator
from edge_sdk.probe.memory import Memory, measure_memory
from edge_sdk.probe.processor import Processor
from edge_sdk.probe.rates import Rates
from edge_sdk.probe.report import Probe
from hetlora.errors import UnavailableError
from hetlora.messages.device import CapabilityReport

PROCESSOR = Processor("aarch64", "a board", ("asimd",), 4, None)
RATES = Rates(2e9, None, 12_345_678_900.0, 55_555_555.0, 1_234_567.0, 0.0)


def probe(**changes: Any) -> Probe:
    usual: dict[str, Any] = {
        "taken_at": datetime(2026, 11, 22, tzinfo=UTC),
        "sdk_version": "0",
        "processor": PROCESSOR,
        "clock": None,
        "temperature_celsius": None,
        "is_throttled": None,
        "memory": Memory(1000, 600),
        "disk_free_bytes": 50,
        "battery": None,
        "network": None,
        "accelerator": None,
        "rates": RATES,
    }
    return Probe(**usual | changes)


def quota(cores: float) -> Processor:
    return Processor("aarch64", "a board", ("asimd",), 4, cores)


def test_report_has_what_the_planner_needs_and_what_operators_ask_for() -> None:
    report = probe(network="wifi", accelerator=Accelerator("tegra", "a name", True)).report(
        traffic_bytes_per_round=9
    )
    assert report == CapabilityReport(
        source="measured",
        cores=4,
        memory_total_bytes=1000,
        memory_available_bytes=600,
        matmul_flops_per_second=2e9,
        disk_free_bytes=50,
        traffic_bytes_per_round=9,
        architecture="aarch64",
        accelerator="tegra",
        network="wifi",
        memory_bandwidth_bytes_per_second=1.2e10,
        download_bytes_per_second=1.2e6,
    )


def test_what_is_unknown_is_left_out_so_that_older_services_read_the_report() -> None:
    bare = probe(
        processor=Processor(None, None, None, 1, None), rates=Rates(2e9, None, None, None, None, None)
    )
    assert json.loads(bare.report().model_dump_json()).keys() == {
        *("source", "cores", "memory_total_bytes", "memory_available_bytes"),
        *("matmul_flops_per_second", "disk_free_bytes", "traffic_bytes_per_round"),
    }


@pytest.mark.parametrize(
    ("quota_cores", "cores", "flops"),
    [(8.0, 4, 2e9), (3.0, 3, 2e9), (1.5, 1, 2e9), (1.0, 1, 2e9), (0.5, 1, 1e9)],
)
def test_cpu_quota_counts_as_fewer_cores_and_below_one_as_a_slower_one(
    quota_cores: float, cores: int, flops: float
) -> None:
    report = probe(processor=quota(quota_cores)).report()
    assert (report.cores, report.matmul_flops_per_second) == (cores, flops)
    planned = flops * TRAINING_EFFICIENCY * (1 + EXTRA_CORE_SHARE * (cores - 1))
    assert training_rate(report, None) == pytest.approx(planned)


@pytest.mark.parametrize(("model_rate", "planned"), [(1e9, 1e9), (3e9, 2e9), (None, 2e9)])
def test_model_that_goes_slower_than_most_products_sets_the_rate(
    model_rate: float | None, planned: float
) -> None:
    rates = Rates(2e9, model_rate, None, None, None, None)
    assert probe(rates=rates).report().matmul_flops_per_second == planned


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"processor": None}, "processor"),
        ({"memory": None}, "memory"),
        ({"disk_free_bytes": None}, "free disk"),
        ({"rates": Rates(None, None, None, None, None, None)}, "rate of matrix products"),
    ],
)
def test_device_that_does_not_tell_what_planning_needs_is_said_so(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UnavailableError, match=f"the {what} of this device is unknown.*by hand"):
        probe(**changes).report()


def test_limits_of_a_container_reach_the_planner(tmp_path: Path) -> None:
    memory = measure_memory(recorded(tmp_path, CONTAINER))
    report = probe(memory=memory, processor=quota(1.5)).report()
    assert (report.memory_available_bytes, report.cores) == (362 * 2**20, 1)
