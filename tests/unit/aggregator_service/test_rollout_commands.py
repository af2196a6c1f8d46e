"""`hetlora group`, `hetlora rollout`, `hetlora device label` and `history`, against a real service."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from test_operator_commands import command

from hetlora.errors import SettingsError

STAGE = "share=1,reports=1,loss=0.5"


@pytest.fixture
def stage(sqlite_stage: Any) -> Any:
    """Of one database: what differs between two is behind the service."""
    return sqlite_stage


def told(http: httpx.Client, *arguments: str) -> Any:
    """What a command says as JSON."""
    done = command(http, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_operator_rolls_a_version_out_to_a_group_and_back(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    version = operator.committed(run_id)["adapter_version"]
    assert told(http, "device", "label", device.device_id, "--set", "site=lab")["labels"] == {"site": "lab"}
    where = ("--where", "label.site=lab", "--where", "cores>=2")
    group = told(http, "group", "create", "lab", "--population", "keyboard", *where)
    assert group["devices"] == 1
    told(http, "alias", "set", "keyboard", "candidate", version, "--reason", "less loss")
    made = told(http, "rollout", "create", "keyboard@candidate", "--group", "lab", "--stage", STAGE)
    assert made["version"] == version
    rollout_id = made["rollout_id"]
    assert (made["state"], made["former"]) == ("draft", f"{run_id}-v000000")
    assert told(http, "rollout", "start", rollout_id)["state"] == "running"
    assert told(http, "rollout", "pause", rollout_id)["state"] == "paused"
    assert told(http, "rollout", "resume", rollout_id)["state"] == "running"

    offer = device.check_in(abilities=["adopt"])["offer"]
    path = f"/adoptions/{offer['assignment_id']}"
    sent = device.call("POST", f"{path}:start", {"rank": 2})["adapter"]["sha256"]
    report = {"adapter": sent, "outcome": "adopted", "reason": "not_compared"}
    device.call("POST", f"{path}:submit", report)
    [row] = told(http, "rollout", "devices", rollout_id, "--state", "adopted")["items"]
    assert row["device_id"] == device.device_id

    shown = command(http, "rollout", "show", rollout_id)
    assert "to group lab (label.site=lab and cores>=2) of keyboard\nstage 1 of 1\n1 adopted\n" in shown.stdout
    assert told(http, "rollout", "roll-back", rollout_id)["state"] == "rolled_back"
    [listed] = told(http, "rollout", "list", "--population", "keyboard")["items"]
    assert listed["state"] == "rolled_back"
    states = [row["new"] for row in told(http, "device", "history", device.device_id)["items"]]
    assert states == ["accepted", "offered", "started", "adopted"]
    assert told(http, "group", "delete", group["group_id"]) == {"deleted": group["group_id"]}
    assert told(http, "group", "list")["items"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("rollout", "show", "nothing"), "not_found", 4),
        (("rollout", "create", "nothing", "--stage", STAGE), "not_found", 4),
        (("rollout", "create", "nothing", "--stage", "share=2,reports=1"), "settings_invalid", 3),
        (("rollout", "create", "nothing", "--stage", STAGE, "--freeze", "now"), "settings_invalid", 3),
        (("group", "create", "lab", "--population", "keyboard", "--where", "cores"), "settings_invalid", 3),
        (("device", "label", "nothing", "--set", "site"), "settings_invalid", 3),
        (("device", "label", "nothing", "--set", "site=lab"), "not_found", 4),
    ],
)
def test_what_cannot_be_done_is_told_with_its_code(
    http: httpx.Client, arguments: tuple[str, ...], code: str, exit_code: int
) -> None:
    done = command(http, *arguments, "--json")
    assert (json.loads(done.stderr)["code"], done.returncode) == (code, exit_code)


def test_stage_that_says_a_thing_twice_is_refused(http: httpx.Client) -> None:
    done = command(http, "rollout", "create", "x", "--stage", "share=1,share=0.5,reports=1")

    assert done.returncode == SettingsError.exit_code
    assert "a stage says it twice" in done.stderr
