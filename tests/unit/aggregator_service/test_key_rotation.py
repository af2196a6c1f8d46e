"""A device takes another key: its id stays, the key so far opens nothing any more."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_operator import Operator
from service_server import problem

from hetlora.signature import rotation_base

NEW = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
NEWEST = Ed25519PrivateKey.from_private_bytes(b"m" * 32)


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def rotation(
    device_id: str, key: Ed25519PrivateKey, prover: Ed25519PrivateKey | None = None
) -> dict[str, str]:
    proof = (prover or key).sign(rotation_base(device_id, public(key)))
    return {"public_key": public(key), "proof": base64.b64encode(proof).decode()}


def rotated(device: FakeDevice, key: Ed25519PrivateKey = NEW) -> Any:
    """Ask for another key, and hold it from then on."""
    status = device.call("POST", "/devices:rotate-key", rotation(device.device_id, key))
    device.key, device.public_key = key, public(key)
    return status


def test_new_key_is_the_same_device_and_the_old_one_nobody(
    device: FakeDevice, operator: Operator, bundle: str
) -> None:
    operator.run(bundle)
    assignment_id, old = device.started(), device.key

    assert rotated(device) == {
        "device_id": device.device_id,
        "state": "accepted",
        "retry_after_seconds": 0.0,
    }

    assert device.offer()["assignment_id"] == assignment_id  # what was under way goes on
    device.key = old
    answer = device.send("GET", f"/objects/{'0' * 64}")
    assert problem(answer) == (401, "authentication_failed")


def test_keys_that_a_device_had_are_kept_and_do_not_come_back(
    device: FakeDevice, operator: Operator, clock: FakeClock
) -> None:
    first = device.key
    rotated(device)
    clock.advance(60)
    rotated(device, NEWEST)

    replaced = operator.items(f"/devices/{device.device_id}/replaced-keys")

    assert replaced == [
        {"public_key": public(first), "replaced_at": "2026-11-20T12:00:00Z"},
        {"public_key": public(NEW), "replaced_at": "2026-11-20T12:01:00Z"},
    ]
    answer = device.send("POST", "/devices:rotate-key", rotation(device.device_id, first))
    assert problem(answer) == (409, "state_conflict")


def test_rotation_whose_answer_was_lost_is_answered_again_under_the_new_key(
    device: FakeDevice, operator: Operator
) -> None:
    message, old = rotation(device.device_id, NEW), device.key
    first = rotated(device)
    device.key = old
    assert problem(device.send("POST", "/devices:rotate-key", message)) == (401, "authentication_failed")
    device.key = NEW

    assert device.call("POST", "/devices:rotate-key", message) == first

    assert len(operator.items(f"/devices/{device.device_id}/replaced-keys")) == 1


def test_device_takes_ten_keys_a_day(device: FakeDevice, clock: FakeClock) -> None:
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(100, 111)]
    for key in keys[:10]:
        rotated(device, key)
    clock.advance(60)
    answer = device.send("POST", "/devices:rotate-key", rotation(device.device_id, keys[10]))
    assert problem(answer) == (429, "too_many_requests")
    assert answer.headers["retry-after"] == str(24 * 3600 - 60)
    clock.advance(24 * 3600 - 60)
    rotated(device, keys[10])
    assert device.check_in()["offer"] is None


def test_key_that_its_bringer_does_not_hold_is_refused(device: FakeDevice) -> None:
    for proof in (
        rotation(device.device_id, NEW, prover=device.key),  # the old key vouches for the new one
        rotation("b" * 32, NEW),  # the new key's proof for another device
    ):
        answer = device.send("POST", "/devices:rotate-key", proof)
        assert problem(answer) == (401, "authentication_failed")
        assert answer.json()["detail"] == "proof is not by the new key"
    assert device.check_in()["offer"] is None


def test_suspended_device_cannot_take_another_key(device: FakeDevice, operator: Operator) -> None:
    operator.call("POST", f"/devices/{device.device_id}:decide", json={"state": "suspended"})
    answer = device.send("POST", "/devices:rotate-key", rotation(device.device_id, NEW))
    assert problem(answer) == (403, "not_permitted")


def test_device_enrols_again_under_its_newest_key_alone(
    device: FakeDevice, enrolment_token: str, http: httpx.Client, clock: FakeClock
) -> None:
    old = device.key
    old_public = device.public_key
    rotated(device)

    assert device.enrol(enrolment_token).check_in()["offer"] is None

    device.key, device.public_key = old, old_public
    message = {"population": "keyboard", "enrolment_token": enrolment_token, "public_key": old_public}
    assert problem(device.send("POST", "/devices", message)) == (401, "authentication_failed")


def test_one_key_may_be_two_devices_that_share_nothing(
    make_device: Callable[[int], FakeDevice], enrolment_token: str, operator: Operator
) -> None:
    """Whoever brings its key to a second id is that device there, and under the first id still the first."""
    device, other = make_device(1), make_device(2)
    rotated(device, other.key)
    operator.call("POST", f"/devices/{other.device_id}:decide", json={"state": "suspended"})

    assert device.check_in()["offer"] is None
    assert problem(other.send("GET", f"/objects/{'0' * 64}")) == (403, "not_permitted")
