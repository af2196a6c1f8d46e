"""`hetlora probe`: a table for people, one JSON object for machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_sdk.probe.accelerator import Accelerator
from edge_sdk.probe.battery import Battery
from edge_sdk.probe.clock import Clock
from edge_sdk.probe.memory import Memory
from edge_sdk.probe.processor import Processor
from edge_sdk.probe.rates import Rates
from edge_sdk.probe.report import Probe
from hetlora.cli.main import app
from hetlora.cli.probe import rows_of, rows_of_report
from hetlora.errors import BundleInvalid
from hetlora.messages.device import CapabilityReport


def told(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["probe", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_device_folder_keeps_rates_until_fresh_ones_are_asked_for(tmp_path: Path) -> None:
    first, second = told("--folder", str(tmp_path)), told("--folder", str(tmp_path))
    assert first["rates"]["oldest_age_seconds"] == 0
    assert second["rates"]["oldest_age_seconds"] > 0
    assert second["rates"]["matmul_flops_per_second"] == first["rates"]["matmul_flops_per_second"]
    assert told("--folder", str(tmp_path), "--fresh")["rates"]["oldest_age_seconds"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]


def test_folder_that_is_no_bundle_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid):
        CliRunner().invoke(app, ["probe", "--bundle", str(tmp_path)], catch_exceptions=False)


def test_table_has_a_line_for_each_thing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["probe", "--folder", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    for what in ("processor", "memory", "battery", "network", "products of one core"):
        assert what in done.stdout


def test_report_for_a_profile_is_printed_as_the_service_is_told_it(tmp_path: Path) -> None:
    first, second = (told("--folder", str(tmp_path), "--report") for _ in range(2))
    report = CapabilityReport.model_validate(first)
    assert report.source == "measured"
    assert report.architecture is not None
    assert second["matmul_flops_per_second"] == first["matmul_flops_per_second"]  # kept in the folder


KNOWN = Probe(
    taken_at=datetime(2026, 11, 22, tzinfo=UTC),
    sdk_version="0",
    processor=Processor("aarch64", "a board", ("asimd", "bf16"), 4, 1.5),
    clock=Clock(729_600_000, 1_510_400_000, None),
    temperature_celsius=50.03,
    is_throttled=False,
    memory=Memory(8_000_000_000, 2_500_000_000),
    disk_free_bytes=3_000_000_000,
    battery=Battery(71.0, False, True),
    network="wifi",
    accelerator=Accelerator("tegra", "a chip", True),
    rates=Rates(2e9, 1.5e9, 6e9, 40e6, None, 7200.0),
)


def test_values_are_shown_in_words() -> None:
    assert dict(rows_of(KNOWN)) == {
        "processor": "a board, aarch64",
        "instruction sets": "asimd, bf16",
        "cores": "4, for 1.5 cores' time",
        "clock": "0.7 GHz now, 1.5 GHz allowed, unknown at most",
        "temperature": "50.0 °C",
        "throttled": "no",
        "memory": "2.5 of 8.0 GB free",
        "disk": "3.0 GB free",
        "battery": "71.0 %",
        "charging": "no",
        "external power": "yes",
        "network": "wifi",
        "accelerator": "tegra, a chip",
        "products of one core": "2.0 GFLOP/s in float32",
        "the model's products": "1.5 GFLOP/s in float32",
        "memory bandwidth": "6.0 GB/s",
        "disk writes": "40.0 MB/s",
        "downloads": "unknown",
        "rates measured": "up to 2.0 h ago",
    }


def test_report_is_shown_by_the_names_that_a_profile_has() -> None:
    assert dict(rows_of_report(KNOWN.report())) == {
        "source": "measured",
        "cores": "1",
        "memory total bytes": "8,000,000,000",
        "memory available bytes": "2,500,000,000",
        "matmul flops per second": "1,500,000,000",
        "disk free bytes": "3,000,000,000",
        "traffic bytes per round": "no limit",
        "architecture": "aarch64",
        "accelerator": "tegra",
        "network": "wifi",
        "memory bandwidth bytes per second": "6,000,000,000",
    }


def test_report_is_a_table_for_people(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["probe", "--folder", str(tmp_path), "--report"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "matmul flops per second" in done.stdout


def test_what_no_machine_told_is_shown_as_unknown() -> None:
    nothing = KNOWN.model_copy(
        update=dict.fromkeys(Probe.model_fields) | {"rates": Rates(None, None, None, None, None, None)}
    )
    assert set(dict(rows_of(nothing)).values()) == {"unknown"}


@pytest.mark.parametrize(
    ("battery", "words"), [(Battery(None, False, True), "none"), (Battery(9.0, None, None), "9.0 %")]
)
def test_device_without_a_battery_is_told_from_one_that_does_not_tell(battery: Battery, words: str) -> None:
    assert dict(rows_of(KNOWN.model_copy(update={"battery": battery})))["battery"] == words
