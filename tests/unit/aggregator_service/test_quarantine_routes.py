"""What operators see of quarantined updates and of devices' reputations, and what they decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_clock import FakeClock
from quarantined_rounds import HONEST, HOSTILE, attacked_run, update
from service_operator import Operator
from service_server import problem
from service_verbs import add_device, asked, deliver
from test_operator_commands import command
from test_operator_keys import with_key

from aggregator_service.screens.suspensions import judge_devices
from aggregator_service.service import Service
from aggregator_service.worker.sweep import sweep
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes

HOSTILE_BYTES = adapter_to_bytes(update(99, 100.0))


@pytest.fixture
def held(service: Service, operator: Operator, bundle: str) -> dict[str, Any]:
    """The quarantined update of a run whose one round has committed without it."""
    operator.committed(attacked_run(service, bundle))
    (found,) = operator.items("/quarantine")
    return found


def reputation(operator: Operator, device_id: str = HOSTILE) -> dict[str, Any]:
    return dict(operator.call("GET", f"/devices/{device_id}/reputation"))


def decided(operator: Operator, held: dict[str, Any], verb: str, reason: str = "") -> Any:
    return operator.call("POST", f"/quarantine/{held['assignment_id']}:{verb}", json={"reason": reason})


def test_quarantined_update_is_listed_with_its_reason(operator: Operator, held: dict[str, Any]) -> None:
    assert (held["device_id"], held["round_index"], held["attempt"]) == (HOSTILE, 0, 0)
    assert (held["state"], held["screen"], held["kept"]) == ("held", "norm", True)
    assert held["finding"].startswith("norm ")
    assert set(held["figures"]) == {"value", "median", "limit"}
    assert (held["sha256"], held["size_bytes"]) == (sha256_of(HOSTILE_BYTES), len(HOSTILE_BYTES))
    assert operator.call("GET", f"/quarantine/{held['assignment_id']}") == held
    (assignment,) = (
        own for own in operator.items(f"/runs/{held['run_id']}/assignments") if own["device_id"] == HOSTILE
    )
    assert (assignment["state"], assignment["reason"]) == ("discarded", f"quarantined: {held['finding']}")


def test_listing_is_asked_by_run_device_and_state(operator: Operator, held: dict[str, Any]) -> None:
    for query, count in (
        (f"run_id={held['run_id']}", 1),
        (f"device_id={HOSTILE}", 1),
        ("state=held", 1),
        ("run_id=another", 0),
        ("device_id=device-0", 0),
        ("state=released", 0),
    ):
        assert len(operator.items(f"/quarantine?{query}")) == count, query


def test_update_is_read_by_operators_alone_and_never_unnoted(
    operator: Operator, held: dict[str, Any]
) -> None:
    path = f"/quarantine/{held['assignment_id']}/content"
    viewer, other = with_key(operator, "viewer", "victor"), with_key(operator, "operator", "olga")
    assert problem(viewer.send("GET", path)) == (403, "not_permitted")
    assert other.send("GET", path).content == HOSTILE_BYTES
    noted = [entry for entry in operator.items("/audit") if entry["action"].startswith("GET ")]
    assert [(entry["key_name"], entry["status"], entry["subject"]) for entry in noted] == [
        ("olga", 200, held["assignment_id"]),
        ("victor", 403, held["assignment_id"]),
    ]


def test_no_device_is_served_a_quarantined_update(
    operator: Operator, held: dict[str, Any], make_device: Callable[[int], Any]
) -> None:
    answer = make_device(1).send("GET", f"/objects/{held['sha256']}")
    assert problem(answer) == (404, "not_found")


def test_reputation_counts_how_assignments_ended(operator: Operator, held: dict[str, Any]) -> None:
    told = reputation(operator)
    assert (told["accepted"], told["quarantined"], told["released"], told["discarded"]) == (0, 1, 0, 0)
    assert (told["recent_updates"], told["recent_quarantined"], told["standing"]) == (1, 1, 0.0)
    honest = reputation(operator, "device-0")
    assert (honest["accepted"], honest["quarantined"], honest["standing"]) == (1, 0, 1.0)


def test_device_without_an_update_has_no_standing(operator: Operator, service: Service) -> None:
    add_device(service)
    told = reputation(operator, "device-1")
    assert (told["recent_updates"], told["standing"]) == (0, None)


def test_released_update_counts_no_more_and_is_merged_nowhere(
    operator: Operator, held: dict[str, Any]
) -> None:
    before = operator.call("GET", f"/runs/{held['run_id']}")
    released = decided(operator, held, "release", "a new camera")
    assert (released["state"], released["reason"]) == ("released", "a new camera")
    told = reputation(operator)
    assert (told["quarantined"], told["released"], told["discarded"], told["standing"]) == (0, 1, 0, 1.0)
    assert operator.call("GET", f"/runs/{held['run_id']}") == before
    moves = operator.items(f"/transitions?subject=quarantine&subject_id={held['assignment_id']}")
    assert [(move["new"], move["reason"]) for move in moves] == [
        ("held", "screen norm"),
        ("released", "a new camera"),
    ]


def test_confirmed_update_goes_on_counting_and_may_still_be_released(
    operator: Operator, held: dict[str, Any]
) -> None:
    assert decided(operator, held, "confirm")["state"] == "confirmed"
    assert reputation(operator)["quarantined"] == 1
    path = f"/quarantine/{held['assignment_id']}:confirm"
    assert problem(operator.send("POST", path, json={})) == (409, "state_conflict")
    assert decided(operator, held, "release")["state"] == "released"


@pytest.mark.parametrize("path", ["/quarantine/nothing", "/quarantine/nothing/content"])
def test_what_is_not_in_quarantine_is_not_found(operator: Operator, path: str) -> None:
    assert problem(operator.send("GET", path)) == (404, "not_found")
    answer = operator.send("POST", "/quarantine/nothing:release", json={})
    assert problem(answer) == (404, "not_found")
    assert problem(operator.send("GET", "/devices/nobody/reputation")) == (404, "not_found")


def test_update_that_was_swept_is_told_to_be_gone(
    operator: Operator, service: Service, clock: FakeClock, held: dict[str, Any]
) -> None:
    clock.advance(service.settings.keep_quarantined_seconds)
    sweep(service)
    path = f"/quarantine/{held['assignment_id']}"
    assert operator.call("GET", path)["kept"] is False
    assert problem(operator.send("GET", f"{path}/content")) == (404, "not_found")


def suspend_after(operator: Operator, rule: dict[str, int] | None) -> Any:
    return operator.call("POST", "/populations/keyboard:suspend-after", json={"rule": rule})


def attacked_again(service: Service, operator: Operator, bundle: str) -> None:
    """Another run of the same devices."""
    run_id = operator.run(bundle, goal_count=HONEST + 1, screens={})
    for number in range(HONEST):
        deliver(service, f"device-{number}", update(number))
    deliver(service, HOSTILE, update(99, 100.0))
    operator.committed(run_id)


def state_of(operator: Operator, device_id: str = HOSTILE) -> tuple[str, str]:
    told = reputation(operator, device_id)
    return told["state"], told["reason"]


def test_device_is_suspended_after_as_many_quarantines_as_its_population_says(
    service: Service, operator: Operator, bundle: str, clock: FakeClock
) -> None:
    rule = {"quarantines": 2, "within_updates": 3}
    assert suspend_after(operator, rule)["suspension"] == rule
    operator.committed(attacked_run(service, bundle))  # at the moment that it was accepted: it counts not
    clock.advance(60)
    attacked_again(service, operator, bundle)
    attacked_again(service, operator, bundle)
    operator.wait_for(f"/devices/{HOSTILE}/reputation", lambda told: told["state"] == "suspended")
    assert state_of(operator) == ("suspended", "2 of its newest 3 updates were quarantined")
    assert state_of(operator, "device-0")[0] == "accepted"
    # Whoever accepts it again has seen those.
    clock.advance(60)
    operator.call("POST", f"/devices/{HOSTILE}:decide", json={"state": "accepted"})
    assert asked(service, HOSTILE).reason == "no run is active"
    assert state_of(operator)[0] == "accepted"


def test_released_quarantine_does_not_suspend(
    service: Service, operator: Operator, bundle: str, clock: FakeClock
) -> None:
    suspend_after(operator, {"quarantines": 2, "within_updates": 3})
    operator.committed(attacked_run(service, bundle))
    clock.advance(60)
    attacked_again(service, operator, bundle)
    decided(operator, operator.items("/quarantine")[0], "release")
    attacked_again(service, operator, bundle)
    judge_devices(service)
    told = reputation(operator)
    assert (told["state"], told["quarantined"], told["released"]) == ("accepted", 2, 1)
    # One more would be the second that counts.
    attacked_again(service, operator, bundle)
    operator.wait_for(f"/devices/{HOSTILE}/reputation", lambda told: told["state"] == "suspended")


def test_no_device_is_suspended_without_a_rule(service: Service, operator: Operator, bundle: str) -> None:
    suspend_after(operator, {"quarantines": 1, "within_updates": 1})
    assert "suspension" not in suspend_after(operator, None)
    operator.committed(attacked_run(service, bundle))
    assert state_of(operator)[0] == "accepted"


def test_rule_that_nobody_could_reach_is_refused(operator: Operator) -> None:
    message = {"rule": {"quarantines": 3, "within_updates": 2}}
    answer = operator.send("POST", "/populations/keyboard:suspend-after", json=message)
    assert problem(answer) == (422, "malformed_message")
    message = {"rule": None}
    answer = operator.send("POST", "/populations/nobodys:suspend-after", json=message)
    assert problem(answer) == (404, "not_found")


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_commands_do_what_the_routes_do(http: httpx.Client, held: dict[str, Any], tmp_path: Path) -> None:
    own, file = held["assignment_id"], tmp_path / "update.safetensors"
    (listed,) = json.loads(command(http, "quarantine", "list", "--state", "held", "--json").stdout)["items"]
    assert listed == held
    assert held["finding"] in command(http, "quarantine", "show", own).stdout
    assert command(http, "quarantine", "download", own, "--out", str(file)).returncode == 0
    assert file.read_bytes() == HOSTILE_BYTES
    again = command(http, "quarantine", "download", own, "--out", str(file))
    assert (again.returncode, "settings_invalid" in again.stderr) == (3, True)
    assert "standing 0%" in command(http, "device", "reputation", HOSTILE).stdout
    confirmed = json.loads(command(http, "quarantine", "confirm", own, "--json").stdout)
    assert confirmed["state"] == "confirmed"
    assert "released, mistaken" in command(http, "quarantine", "release", own, "--reason", "mistaken").stdout
    again = command(http, "quarantine", "release", own, "--json")
    assert (again.returncode, json.loads(again.stderr)["code"]) == (4, "state_conflict")
    told = json.loads(command(http, "device", "reputation", HOSTILE, "--json").stdout)
    assert (told["quarantined"], told["released"], told["standing"]) == (0, 1, 1.0)


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_suspensions_are_set_by_command(http: httpx.Client) -> None:
    path = ("population", "suspend-after", "keyboard")
    limits = ("--quarantines", "3", "--within-updates", "20")
    assert "3 of 20 updates suspend a device" in command(http, *path, *limits).stdout
    assert "no device is suspended" in command(http, *path, "--off").stdout
    for wrong in ((), ("--off", *limits), limits[:2]):
        assert command(http, *path, *wrong).returncode == 3


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_run_is_created_with_screens_by_command(http: httpx.Client, bundle: str) -> None:
    create = ("run", "create", "--population", "keyboard", "--bundle", bundle, "--goal-count", "9", "--json")
    options = ("--screen-option", "norm=4", "--screen-option", "loss=null")
    made = json.loads(command(http, *create, "--screens", *options).stdout)
    assert (made["settings"]["screens"]["norm"], made["settings"]["screens"]["loss"]) == (4.0, None)
    assert "screens" not in json.loads(command(http, *create).stdout)["settings"]
    for wrong in (
        options,
        ("--screens", "--screen-option", "nrom=4"),
        ("--screens", "--screen-option", "norm=0"),
    ):
        assert command(http, *create, *wrong).returncode == 3
