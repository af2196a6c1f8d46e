"""`--condition`: when devices may work, as an operator asks it of a run, or whoever runs a device of that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.conditions import Conditions

FLAG: Final = "--condition"
KNOWN: Final = ", ".join(Conditions.model_fields)

ConditionsOption = Annotated[
    list[str] | None,
    typer.Option(
        FLAG,
        help="What must hold for a device to work: charging, unmetered, idle, min_battery_percent=N, "
        "max_temperature_celsius=N, min_free_memory_bytes=N, or hours=22:00-06:00 of its own time; again for "
        "each, and for other hours. Both a run's and a device's count.",
    ),
]


def conditions_of(words: Sequence[str]) -> Conditions:
    """The conditions that words name: `key`, or `key=value`.

    Raises:
        SettingsError: no such condition, one named twice, or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in Conditions.model_fields:
            raise SettingsError(f"{FLAG} has no such value", got=word, expected=KNOWN)
        if key == "hours":
            values["hours"] = (*values.get("hours", ()), value)
        elif key in values:
            raise SettingsError(f"{FLAG} {key} is given twice", got=word)
        else:
            values[key] = _value(value) if equals else True
    try:
        return Conditions.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{FLAG} does not take this", got=faults_in_words(error.errors())) from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
