"""Who is admitted to a population: by token, by an operator's decision, or announced before it came."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_operator import Operator
from service_server import problem

from hetlora.digest import sha256_of
from hetlora.signature import signature_header

DAY_SECONDS = 24 * 3600.0


@pytest.fixture
def stranger(http: httpx.Client, clock: FakeClock) -> FakeDevice:
    """A device that never enrolled."""
    return FakeDevice(http, clock, seed=7)


def enrolment(device: FakeDevice, token: str | None, population: str = "keyboard") -> dict[str, Any]:
    return {"population": population, "enrolment_token": token, "public_key": device.public_key}


def test_device_waits_for_approval_where_the_population_asks_for_it(
    operator: Operator, stranger: FakeDevice
) -> None:
    created = operator.call("POST", "/populations", json={"name": "camera", "admission": "approval"})
    message = enrolment(stranger, created["enrolment_token"], "camera")

    first, again = (stranger.call("POST", "/devices", message) for _ in range(2))

    for status in (first, again):
        assert (status["device_id"], status["state"]) == (stranger.device_id, "pending")
        assert status["retry_after_seconds"] >= 5
    refused = stranger.send("GET", f"/objects/{'0' * 64}")
    assert problem(refused) == (403, "not_permitted")
    assert refused.json()["got"] == "state pending: enrolment token"

    operator.call("POST", f"/devices/{stranger.device_id}:decide", json={"state": "accepted"})

    assert stranger.call("POST", "/devices", message)["state"] == "accepted"
    assert stranger.check_in(population="camera")["reason"] == "no run is active"
    moves = operator.items(f"/transitions?subject=device&subject_id={stranger.device_id}")
    assert [(move["old"], move["new"]) for move in moves] == [(None, "pending"), ("pending", "accepted")]


def test_rejected_device_stays_out(operator: Operator, stranger: FakeDevice) -> None:
    created = operator.call("POST", "/populations", json={"name": "camera", "admission": "approval"})
    message = enrolment(stranger, created["enrolment_token"], "camera")
    stranger.call("POST", "/devices", message)
    operator.call("POST", f"/devices/{stranger.device_id}:decide", json={"state": "rejected"})

    assert stranger.call("POST", "/devices", message)["state"] == "rejected"
    assert problem(stranger.send("GET", f"/objects/{'0' * 64}")) == (403, "not_permitted")


@pytest.mark.parametrize("known_by", ["device_id", "public_key"])
def test_announced_device_is_accepted_without_a_token(
    operator: Operator, stranger: FakeDevice, known_by: str
) -> None:
    message = {"population": "keyboard", "name": "till 4", known_by: getattr(stranger, known_by)}
    announced = [operator.call("POST", "/devices:preauthorize", json=message) for _ in range(2)]
    assert announced[0] == announced[1]
    assert (announced[0]["device_id"], announced[0]["state"]) == (stranger.device_id, "preauthorized")
    # Until it brings its key the device is one that never enrolled.
    assert problem(stranger.send("GET", f"/objects/{'0' * 64}")) == (401, "unknown_device")

    assert stranger.call("POST", "/devices", enrolment(stranger, None))["state"] == "accepted"

    assert stranger.check_in()["offer"] is None
    (details,) = operator.items("/devices")
    assert (details["name"], details["state"]) == ("till 4", "accepted")


def test_announced_key_of_a_device_admits_no_other_key(
    operator: Operator, stranger: FakeDevice, http: httpx.Client, clock: FakeClock
) -> None:
    thief = FakeDevice(http, clock, seed=9)
    # Under an id of its own, as a device has that replaced its first key.
    message = {"population": "keyboard", "device_id": "a" * 32, "public_key": stranger.public_key}
    operator.call("POST", "/devices:preauthorize", json=message)

    answer = thief.send("POST", "/devices", enrolment(thief, None), key_id="a" * 32)
    assert problem(answer) == (401, "authentication_failed")

    status = stranger.call("POST", "/devices", enrolment(stranger, None), key_id="a" * 32)
    assert status == {"device_id": "a" * 32, "state": "accepted", "retry_after_seconds": 0.0}
    assert stranger.send("GET", f"/objects/{'0' * 64}", key_id="a" * 32).status_code == 404


def test_device_that_nobody_announced_needs_a_token(stranger: FakeDevice) -> None:
    answer = stranger.send("POST", "/devices", enrolment(stranger, None))
    assert problem(answer) == (401, "unknown_device")
    assert answer.json()["expected"] == "an enrolment token"


def test_announced_device_is_accepted_by_coming_alone(operator: Operator, stranger: FakeDevice) -> None:
    message = {"population": "keyboard", "device_id": stranger.device_id}
    operator.call("POST", "/devices:preauthorize", json=message)
    path = f"/devices/{stranger.device_id}:decide"
    answer = operator.send("POST", path, json={"state": "accepted"})
    assert problem(answer) == (409, "state_conflict")
    operator.call("POST", path, json={"state": "decommissioned"})
    assert stranger.call("POST", "/devices", enrolment(stranger, None))["state"] == "decommissioned"


def test_device_that_is_known_cannot_be_announced(operator: Operator, device: FakeDevice) -> None:
    message = {"population": "keyboard", "device_id": device.device_id}
    answer = operator.send("POST", "/devices:preauthorize", json=message)
    assert problem(answer) == (409, "state_conflict")
    assert answer.json()["got"] == "state accepted in population keyboard"


def test_announcement_without_a_name_or_for_no_population_is_refused(operator: Operator) -> None:
    for message, refusal in (
        ({"population": "keyboard"}, (422, "malformed_message")),
        ({"population": "camera", "device_id": "a" * 32}, (404, "not_found")),
    ):
        assert problem(operator.send("POST", "/devices:preauthorize", json=message)) == refusal


def test_replaced_token_admits_nobody_and_devices_stay(
    operator: Operator, make_device: Callable[[int], FakeDevice], stranger: FakeDevice, enrolment_token: str
) -> None:
    device = make_device(1)
    rotated = operator.call("POST", "/populations/keyboard:rotate-token", json={})
    assert rotated["token_expires_at"] is None

    answer = stranger.send("POST", "/devices", enrolment(stranger, enrolment_token))

    assert problem(answer) == (401, "authentication_failed")
    assert device.check_in()["offer"] is None
    assert stranger.enrol(rotated["enrolment_token"]).check_in()["offer"] is None


def test_token_ends_when_it_was_said_to(operator: Operator, stranger: FakeDevice, clock: FakeClock) -> None:
    rotated = operator.call(
        "POST", "/populations/keyboard:rotate-token", json={"token_valid_seconds": DAY_SECONDS}
    )
    assert rotated["token_expires_at"] == "2026-11-21T12:00:00Z"
    message = enrolment(stranger, rotated["enrolment_token"])

    clock.advance(DAY_SECONDS)

    answer = stranger.send("POST", "/devices", message)
    assert problem(answer) == (401, "authentication_failed")
    assert answer.json()["detail"] == "enrolment token has expired"
    clock.advance(-1)
    assert stranger.call("POST", "/devices", message)["state"] == "accepted"


def test_token_of_no_population_cannot_be_replaced(operator: Operator) -> None:
    answer = operator.send("POST", "/populations/camera:rotate-token", json={})
    assert problem(answer) == (404, "not_found")


@pytest.mark.parametrize("state", ["suspended", "decommissioned"])
def test_device_that_is_shut_out_loses_its_work_and_frees_its_place(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str, state: str
) -> None:
    run_id = operator.run(bundle)
    first, second = make_device(1), make_device(2)
    assignment_id = first.started()
    assert second.check_in()["reason"] == "the cohort is complete"

    operator.call("POST", f"/devices/{first.device_id}:decide", json={"state": state, "reason": "stolen"})

    (assignment,) = operator.items(f"/runs/{run_id}/assignments")
    assert (assignment["assignment_id"], assignment["state"]) == (assignment_id, "aborted")
    assert assignment["reason"] == f"device is {state}: stolen"
    assert second.check_in()["offer"] is not None


NEUTRAL = (1).to_bytes(32, "little")
FORGED = NEUTRAL + bytes(32)  # a signature of everything by the neutral element as key


class Keyless(FakeDevice):
    """Whoever holds no key, under one that needs none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.public_key = base64.b64encode(NEUTRAL).decode()
        self.device_id = sha256_of(NEUTRAL)[:32]

    def signed(self, method: str, path: str, body: bytes = b"", **changes: Any) -> dict[str, str]:
        return super().signed(method, path, body, **changes) | {"Signature": signature_header(FORGED)}


def test_key_that_anybody_can_sign_for_is_refused_wherever_it_comes_in(
    operator: Operator, http: httpx.Client, clock: FakeClock, enrolment_token: str, device: FakeDevice
) -> None:
    anybody = Keyless(http, clock)
    rotation = {"public_key": anybody.public_key, "proof": base64.b64encode(FORGED).decode()}
    announced = {"population": "keyboard", "public_key": anybody.public_key}
    for answer in (
        anybody.send("POST", "/devices", enrolment(anybody, enrolment_token)),
        device.send("POST", "/devices:rotate-key", rotation),
        operator.send("POST", "/devices:preauthorize", json=announced),
    ):
        assert problem(answer) == (422, "malformed_message")
        assert "public_key" in answer.text
        assert "small order" in answer.text
    assert problem(anybody.send("GET", f"/objects/{'0' * 64}")) == (401, "unknown_device")
