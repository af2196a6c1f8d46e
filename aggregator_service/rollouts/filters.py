"""A filter over devices as a condition of SQL: one meaning, for a device at its check-in and for a count."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ColumnElement, String, cast, type_coerce

from aggregator_service.storage.tables import DeviceRow
from hetlora.messages.rollouts import LABEL, NUMBER_FIELDS, DeviceFilter, GroupCondition
from hetlora.states import DeviceState


def holds_for(population: str, wanted: DeviceFilter) -> tuple[ColumnElement[bool], ...]:
    """What is true of the rows of a population's devices that a filter holds for.

    Those that are not accepted are not among them, unless a condition is about the state.
    """
    conditions = [DeviceRow.population == population, *map(_holds, wanted.conditions)]
    if not any(condition.field == "state" for condition in wanted.conditions):
        conditions.append(DeviceRow.state == DeviceState.ACCEPTED)
    return tuple(conditions)


def _holds(condition: GroupCondition) -> ColumnElement[bool]:
    told, value = _told(condition.field), condition.value
    match condition.comparison:
        case "is":
            return told == value
        case "is_not":
            return told.is_distinct_from(value)
        case "at_least":
            return told >= value
        case "at_most":
            return told <= value
        case "begins_with":
            assert isinstance(value, str)
            return told.startswith(value, autoescape=True)


def _told(field: str) -> ColumnElement[Any]:
    if field == "name":
        return type_coerce(DeviceRow.name, String)
    if field == "state":  # as text: an operator may ask for a word that is no state
        return cast(DeviceRow.state, String)
    if field.startswith(LABEL):
        label: ColumnElement[Any] = type_coerce(DeviceRow.labels, JSON)[field.removeprefix(LABEL)].as_string()
        return label
    of_report = type_coerce(DeviceRow.capabilities, JSON)[field]
    told: ColumnElement[Any] = of_report.as_float() if field in NUMBER_FIELDS else of_report.as_string()
    return told
