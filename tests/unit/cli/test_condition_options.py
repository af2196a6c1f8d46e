"""Conditions from words on the command line."""

from __future__ import annotations

import pytest

from hetlora.cli.condition_options import conditions_of
from hetlora.errors import SettingsError
from hetlora.messages.conditions import ANY_TIME, Conditions


def test_words_name_conditions() -> None:
    assert conditions_of([]) == ANY_TIME
    words = ["charging", "min_battery_percent=30", "hours=22:00-06:00", "hours=00:00-05:30"]
    assert conditions_of(words) == Conditions(
        charging=True, min_battery_percent=30, hours=("22:00-06:00", "00:00-05:30")
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["warm"], "got warm; expected charging, unmetered, idle"),
        (["charging", "charging"], "--condition charging is given twice"),
        (["min_battery_percent=101"], "min_battery_percent: Input should be less than or equal to 100"),
        (["min_battery_percent"], "min_battery_percent"),
        (["hours=25:00-06:00"], "hours.0"),
        (["hours=06:00-06:00"], "begin and end at one moment"),
        (["min_free_memory_bytes=some"], "min_free_memory_bytes"),
    ],
)
def test_words_that_name_none_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        conditions_of(words)
    assert told in str(error.value)
