"""Conditions over devices as the service's groups have them, asked of devices that were listed."""

from __future__ import annotations

from hetlora.messages.fleet import DeviceDetails
from hetlora.messages.rollouts import LABEL, GroupCondition


def holds(condition: GroupCondition, device: DeviceDetails) -> bool:
    """Whether a condition holds for a device; of what it has not told only `is_not` does."""
    told, value = _told(condition.field, device), condition.value
    match condition.comparison:
        case "is_not":
            return told != value
        case "is":
            return told == value
        case "at_least":
            return isinstance(told, float) and isinstance(value, float) and told >= value
        case "at_most":
            return isinstance(told, float) and isinstance(value, float) and told <= value
        case "begins_with":
            return isinstance(told, str) and told.startswith(str(value))


def _told(field: str, device: DeviceDetails) -> str | float | None:
    if field == "name":
        return device.name
    if field == "state":
        return str(device.state)
    if field.startswith(LABEL):
        return device.labels.get(field.removeprefix(LABEL))
    told = None if device.capabilities is None else getattr(device.capabilities, field)
    return float(told) if isinstance(told, int | float) else told
