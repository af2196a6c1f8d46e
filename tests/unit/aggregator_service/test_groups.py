"""Labels and groups: which devices a filter holds for, in one device's case and in a count."""

from __future__ import annotations

from typing import Any

import pytest
from fake_device import CAPABILITIES, FakeDevice
from service_operator import Operator
from service_verbs import add_device
from sqlalchemy import select

from aggregator_service.rollouts.filters import holds_for
from aggregator_service.rollouts.groups import label_device
from aggregator_service.service import Service
from aggregator_service.storage.tables import DeviceRow
from hetlora.errors import SettingsError
from hetlora.messages.device import CapabilityReport
from hetlora.messages.rollouts import DeviceFilter, LabelChange

GROUP = {"population": "keyboard", "name": "lab"}


@pytest.fixture
def fleet(service: Service) -> None:
    """Three accepted devices: a large one in the lab, a small one in the field, and one that told nothing."""
    for name, cores, site in (("large", 8, "lab"), ("small", 2, "field.1"), ("new", None, None)):
        add_device(service, name)
        with service.database.write() as session:
            row = session.get_one(DeviceRow, name)
            row.name = f"{name}_50%"
            if cores is not None:
                row.capabilities = CapabilityReport.model_validate(
                    CAPABILITIES | {"cores": cores, "architecture": "x86_64"}
                )
        if site is not None:
            label_device(service, name, LabelChange(set={"my-site.name": site}))


@pytest.mark.parametrize(
    ("field", "comparison", "value", "expected"),
    [
        ("cores", "at_least", 4, ["large"]),
        ("cores", "at_most", 2, ["small"]),
        ("cores", "is", 8, ["large"]),
        ("cores", "is_not", 8, ["new", "small"]),  # of what was not told, only this holds
        ("memory_total_bytes", "at_least", 8_000_000_000, ["large", "small"]),
        ("architecture", "is", "x86_64", ["large", "small"]),
        ("architecture", "begins_with", "x86", ["large", "small"]),
        ("label.my-site.name", "is", "lab", ["large"]),
        ("label.my-site.name", "begins_with", "field.", ["small"]),
        ("label.my-site.name", "is_not", "lab", ["new", "small"]),
        ("label.nothing", "is", "lab", []),
        ("name", "begins_with", "s", ["small"]),
        ("name", "begins_with", "large_5", ["large"]),
        ("name", "begins_with", "large_50%", ["large"]),
        ("name", "begins_with", "%", []),  # no pattern: a text
        ("state", "is", "accepted", ["large", "new", "small"]),
        ("state", "is", "suspended", []),
        ("state", "is", "no such state", []),
    ],
)
def test_condition_holds_for_the_devices_that_told_so(
    service: Service, fleet: None, field: str, comparison: str, value: object, expected: list[str]
) -> None:
    condition = {"field": field, "comparison": comparison, "value": value}
    wanted = DeviceFilter.model_validate({"conditions": [condition]})
    with service.database.read() as session:
        found = session.scalars(select(DeviceRow.id).where(*holds_for("keyboard", wanted)))
        assert sorted(found) == expected


@pytest.mark.parametrize(
    "condition",
    [
        {"field": "cores", "comparison": "is", "value": "8"},
        {"field": "cores", "comparison": "begins_with", "value": 8},
        {"field": "name", "comparison": "at_least", "value": "a"},
        {"field": "public_key", "comparison": "is", "value": "a"},
        {"field": "label.A space", "comparison": "is", "value": "a"},
        {"field": "cores", "comparison": "is", "value": float("1e19")},
    ],
)
def test_condition_that_means_nothing_is_refused(operator: Operator, condition: dict[str, Any]) -> None:
    answer = operator.send("POST", "/groups", json=GROUP | {"filter": {"conditions": [condition]}})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_message")


def test_group_is_made_counted_listed_and_deleted(operator: Operator, device: FakeDevice) -> None:
    conditions = [{"field": "label.site", "comparison": "is", "value": "lab"}]
    made = operator.call("POST", "/groups", json=GROUP | {"filter": {"conditions": conditions}})
    assert made["devices"] == 0
    labels = {"set": {"site": "lab"}}
    operator.call("POST", f"/devices/{device.device_id}:label", json=labels)
    path = f"/groups/{made['group_id']}"
    assert operator.call("GET", path)["devices"] == 1
    assert [group["name"] for group in operator.items("/groups?population=keyboard")] == ["lab"]
    assert operator.items("/devices")[0]["labels"] == {"site": "lab"}
    assert operator.send("POST", "/groups", json=GROUP).json()["code"] == "state_conflict"
    operator.call("POST", f"{path}:delete")
    assert operator.send("GET", path).json()["code"] == "not_found"
    assert operator.items("/groups") == []


def test_group_that_is_asked_for_twice_under_one_key_is_made_once(operator: Operator) -> None:
    made = [
        operator.call("POST", "/groups", json=GROUP, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert made[0]["group_id"] == made[1]["group_id"]


def test_device_has_so_many_labels_at_most(service: Service) -> None:
    device = add_device(service)
    for number in range(16):
        label_device(service, device, LabelChange(set={f"key{number}": "value"}))
    with pytest.raises(SettingsError, match="labels of a device"):
        label_device(service, device, LabelChange(set={"one-more": "value"}))
    found = label_device(service, device, LabelChange(set={"one-more": "value"}, remove=("key0",)))
    assert len(found.labels) == 16
