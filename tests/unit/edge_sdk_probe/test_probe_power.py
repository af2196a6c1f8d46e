"""What draws power, as kernels tell of it; no such machine has run this."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_systems import Files, recorded

from edge_sdk.probe.power import measure_processor_joules, measure_watts

INA = "sys/class/hwmon/hwmon3"
BATTERY = "sys/class/power_supply/BAT0"
RAPL = "sys/class/powercap"
# An Orin's INA3221: millivolts and milliamperes of the whole module, and of a rail that is part of it.
JETSON: Files = {
    f"{INA}/in1_label": "VDD_IN",
    f"{INA}/in1_input": "5000",
    f"{INA}/curr1_input": "1500",
    f"{INA}/in2_label": "VDD_CPU_GPU_CV",
    f"{INA}/in2_input": "5000",
    f"{INA}/curr2_input": "400",
}
DISCHARGING: Files = {f"{BATTERY}/type": "Battery", f"{BATTERY}/status": "Discharging"}
SERVER: Files = {
    f"{RAPL}/intel-rapl:0/name": "package-0",
    f"{RAPL}/intel-rapl:0/energy_uj": "2500000",
    f"{RAPL}/intel-rapl:0:0/name": "core",
    f"{RAPL}/intel-rapl:0:0/energy_uj": "1000000",
    f"{RAPL}/intel-rapl:1/name": "package-1",
    f"{RAPL}/intel-rapl:1/energy_uj": "500000",
}


def test_jetson_draws_what_its_input_rail_has(tmp_path: Path) -> None:
    assert measure_watts(recorded(tmp_path, JETSON)) == pytest.approx(7.5)


@pytest.mark.parametrize(
    "told",
    [
        {f"{BATTERY}/power_now": "7500000"},
        {f"{BATTERY}/power_now": "-7500000"},
        {f"{BATTERY}/current_now": "2000000", f"{BATTERY}/voltage_now": "3750000"},
        {f"{BATTERY}/current_now": "-2000000", f"{BATTERY}/voltage_now": "3750000"},
    ],
)
def test_battery_that_feeds_the_device_tells_what_it_draws(tmp_path: Path, told: Files) -> None:
    assert measure_watts(recorded(tmp_path, DISCHARGING, told)) == pytest.approx(7.5)


def test_what_goes_into_a_battery_is_not_what_the_device_draws(tmp_path: Path) -> None:
    charging = {**DISCHARGING, f"{BATTERY}/status": "Charging", f"{BATTERY}/power_now": "7500000"}
    assert measure_watts(recorded(tmp_path, charging)) is None


def test_mouse_is_not_the_device(tmp_path: Path) -> None:
    mouse = {**DISCHARGING, f"{BATTERY}/scope": "Device", f"{BATTERY}/power_now": "7500000"}
    assert measure_watts(recorded(tmp_path, mouse)) is None


def test_processors_count_together_and_their_parts_not_twice(tmp_path: Path) -> None:
    assert measure_processor_joules(recorded(tmp_path, SERVER)) == pytest.approx(3.0)


def test_counter_that_is_closed_to_us_is_unknown(tmp_path: Path) -> None:
    closed = {path: content for path, content in SERVER.items() if path != f"{RAPL}/intel-rapl:1/energy_uj"}
    assert measure_processor_joules(recorded(tmp_path, closed)) is None
    assert measure_processor_joules(recorded(tmp_path / "other", {"sys/": ""})) is None


@settings(deadline=None, max_examples=50)  # the machine may be busy
@given(
    garbage=st.dictionaries(
        st.sampled_from([*JETSON, *DISCHARGING, f"{BATTERY}/power_now", *SERVER]),
        st.sampled_from(["", "0", "-1", "9" * 30, "nan", "VDD_IN", "package", "\0", "Discharging"]),
    )
)
def test_files_of_any_content_are_watts_or_unknown(garbage: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        system = recorded(Path(folder), JETSON, DISCHARGING, SERVER, garbage)
        watts = measure_watts.__wrapped__(system)  # type: ignore[attr-defined]
        assert watts is None or 0 < watts < 1e5
        joules = measure_processor_joules.__wrapped__(system)  # type: ignore[attr-defined]
        assert joules is None or joules >= 0
