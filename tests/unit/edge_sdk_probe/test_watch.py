"""Whether a device may work, on machines that are recorded as their kernels tell of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_systems import Files, recorded, routes

from edge_sdk.conditions import Watch
from edge_sdk.probe.system import System
from hetlora.errors import ConditionsUnmet
from hetlora.messages.conditions import ANY_TIME, Conditions, is_within

NOON = datetime(2026, 11, 22, 12, 0)
SUPPLY = "sys/class/power_supply"
# On its battery, which is at 40 %, at 61 degrees, with 500 MiB free, over a modem.
TABLET: Files = {
    f"{SUPPLY}/BAT0/type": "Battery",
    f"{SUPPLY}/BAT0/status": "Discharging",
    f"{SUPPLY}/BAT0/capacity": "40",
    f"{SUPPLY}/AC/type": "Mains",
    f"{SUPPLY}/AC/online": "0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "61000",
    "proc/meminfo": f"MemTotal: {2 * 2**20} kB\nMemAvailable: {500 * 2**10} kB",
    "proc/net/route": routes("wwan0 00000000 0100A8C0 0003 0 0 600 00000000 0 0 0"),
}
PLUGGED_IN: Files = TABLET | {f"{SUPPLY}/BAT0/status": "Charging", f"{SUPPLY}/AC/online": "1"}
ON_WIFI: Files = TABLET | {
    "proc/net/route": routes("wlan0 00000000 0100A8C0 0003 0 0 600 00000000 0 0 0"),
    "sys/class/net/wlan0/uevent": "DEVTYPE=wlan",
}


def told(system: System, conditions: Conditions, **of_app: bool | None) -> str | None:
    told_by_app = {name: (lambda value=value: value) for name, value in of_app.items()}
    return Watch(conditions, system=system, now=lambda: NOON, **told_by_app).unmet()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(charging=True), "the device runs on its battery"),
        (Conditions(min_battery_percent=40), None),
        (Conditions(min_battery_percent=41), "the battery is at 40 %, 41 % are wanted"),
        (Conditions(max_temperature_celsius=61), None),
        (
            Conditions(max_temperature_celsius=60.5),
            "the processor is at 61 degrees Celsius, 60.5 are allowed",
        ),
        (Conditions(min_free_memory_bytes=500 * 2**20), None),
        (
            Conditions(min_free_memory_bytes=501 * 2**20),
            "500 MiB of memory are free, 501 are to stay so",
        ),
        (Conditions(unmetered=True), "the network, cellular, may be metered"),
        (Conditions(hours=("22:00-06:00",)), "it is 12:00, and not within 22:00-06:00"),
        (
            Conditions(hours=("22:00-06:00", "13:00-14:00")),
            "it is 12:00, and not within 22:00-06:00 or 13:00-14:00",
        ),
        (Conditions(hours=("22:00-06:00", "12:00-13:00")), None),
        (ANY_TIME, None),
    ],
)
def test_device_is_held_to_each_condition(tmp_path: Path, conditions: Conditions, reason: str | None) -> None:
    assert told(recorded(tmp_path, TABLET), conditions) == reason


def test_line_lets_a_device_work_whose_battery_still_charges(tmp_path: Path) -> None:
    assert told(recorded(tmp_path, PLUGGED_IN), Conditions(charging=True)) is None


def test_app_knows_better_what_feeds_the_device(tmp_path: Path) -> None:
    battery, line = recorded(tmp_path / "battery", TABLET), recorded(tmp_path / "line", PLUGGED_IN)
    asked = Conditions(charging=True)
    assert told(battery, asked, is_charging=True) is None
    assert told(line, asked, is_charging=False) == "the device runs on its battery"


def test_app_knows_better_what_a_network_costs(tmp_path: Path) -> None:
    wifi, modem = recorded(tmp_path / "wifi", ON_WIFI), recorded(tmp_path / "modem", TABLET)
    asked = Conditions(unmetered=True)
    assert told(wifi, asked) is None
    assert told(wifi, asked, is_metered=True) == "the network is metered"
    assert told(modem, asked, is_metered=False) is None
    assert told(modem, asked, is_metered=None) == "the network, cellular, may be metered"


def test_only_the_app_tells_that_nobody_uses_the_device(tmp_path: Path) -> None:
    system, asked = recorded(tmp_path, TABLET), Conditions(idle=True)
    assert told(system, asked, is_idle=True) is None
    assert told(system, asked, is_idle=False) == "the device is in use"
    assert told(system, asked, is_idle=None) == "the app does not tell whether the device is idle"


def test_machine_that_tells_nothing_is_neither_empty_nor_hot_nor_full(tmp_path: Path) -> None:
    asked = Conditions(
        charging=True, min_battery_percent=100, max_temperature_celsius=1, min_free_memory_bytes=2**40
    )
    assert told(recorded(tmp_path, {"proc/": "", "sys/": ""}), asked) is None


def test_runs_conditions_hold_beside_the_apps(tmp_path: Path) -> None:
    watch = Watch(Conditions(min_battery_percent=30), system=recorded(tmp_path, TABLET))
    assert replace(watch, of_run=Conditions(min_battery_percent=20)).unmet() is None
    with pytest.raises(ConditionsUnmet, match="at 40 %, 50 % are wanted"):
        replace(watch, of_run=Conditions(min_battery_percent=50)).check()


@pytest.mark.parametrize(
    ("moment", "hours", "within"),
    [
        ("22:00", "22:00-06:00", True),
        ("05:59", "22:00-06:00", True),
        ("06:00", "22:00-06:00", False),
        ("12:00", "22:00-06:00", False),
        ("06:00", "06:00-22:00", True),
        ("22:00", "06:00-22:00", False),
    ],
)
def test_hours_may_span_midnight(moment: str, hours: str, within: bool) -> None:
    assert is_within(time.fromisoformat(moment), hours) is within


HOURS = st.tuples(st.times(), st.times()).filter(lambda own: f"{own[0]:%H:%M}" != f"{own[1]:%H:%M}")
CONDITIONS = st.builds(
    Conditions,
    charging=st.booleans(),
    unmetered=st.booleans(),
    min_battery_percent=st.none() | st.sampled_from([39, 40, 41]),
    max_temperature_celsius=st.none() | st.sampled_from([60, 61, 62]),
    min_free_memory_bytes=st.none() | st.sampled_from([2**28, 2**30]),
    hours=st.lists(HOURS.map(lambda own: f"{own[0]:%H:%M}-{own[1]:%H:%M}"), max_size=2).map(tuple),
)


@pytest.fixture(scope="module")
def tablet(tmp_path_factory: pytest.TempPathFactory) -> System:
    return recorded(tmp_path_factory.mktemp("tablet"), TABLET)


@given(one=CONDITIONS, other=CONDITIONS)
def test_both_conditions_hold_or_the_device_does_not_work(
    one: Conditions, other: Conditions, tablet: System
) -> None:
    watch = Watch(one, system=tablet, now=lambda: NOON, of_run=other)
    assert (watch.unmet() is None) == (told(tablet, one) is None and told(tablet, other) is None)
