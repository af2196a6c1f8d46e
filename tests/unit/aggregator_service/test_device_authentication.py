from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import CAPABILITIES, FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_server import problem, served
from sqlalchemy import func, select

from aggregator_service.app import create_app
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import NonceRow
from aggregator_service.worker.worker import sweep
from hetlora.signature import content_digest

CHECK_IN = {
    "protocol_version": 1,
    "sdk_version": "0.1.0",
    "population": "keyboard",
    "capabilities": CAPABILITIES,
    "example_count": 1,
}


def test_unsigned_request_is_refused(http: httpx.Client) -> None:
    answer = http.post("/device/v1/check-ins", json=CHECK_IN)
    assert problem(answer) == (401, "authentication_failed")
    assert "www-authenticate" in answer.headers


def test_unknown_device_is_refused(http: httpx.Client, clock: FakeClock) -> None:
    stranger = FakeDevice(http, clock, seed=9)
    assert problem(stranger.send("POST", "/check-ins", CHECK_IN)) == (401, "unknown_device")


def test_signature_of_another_key_is_refused(
    http: httpx.Client, clock: FakeClock, device: FakeDevice
) -> None:
    thief = FakeDevice(http, clock, seed=9)
    answer = thief.send("POST", "/check-ins", CHECK_IN, key_id=device.device_id)
    assert problem(answer) == (401, "authentication_failed")


@pytest.mark.parametrize("seconds", [-301, 301])
def test_stale_or_future_clock_is_refused(device: FakeDevice, clock: FakeClock, seconds: int) -> None:
    created = int(clock().timestamp()) + seconds
    answer = device.send("POST", "/check-ins", CHECK_IN, created=created)
    assert problem(answer) == (401, "clock_skew")


@pytest.mark.parametrize("seconds", [-300, 300])
def test_clock_within_the_skew_is_fine(device: FakeDevice, clock: FakeClock, seconds: int) -> None:
    created = int(clock().timestamp()) + seconds
    assert device.send("POST", "/check-ins", CHECK_IN, created=created).is_success


def test_replayed_request_is_refused(device: FakeDevice) -> None:
    nonce = "a-nonce-used-twice"
    assert device.send("POST", "/check-ins", CHECK_IN, nonce=nonce).is_success
    assert problem(device.send("POST", "/check-ins", CHECK_IN, nonce=nonce)) == (401, "replayed_request")


def test_replayed_request_is_refused_across_a_restart(
    settings: Settings, clock: FakeClock, enrolment_token: str
) -> None:
    nonce = "a-nonce-used-twice"
    with served(create_app(open_service(settings, clock)), settings) as http:
        device = FakeDevice(http, clock).enrol(enrolment_token)
        assert device.send("POST", "/check-ins", CHECK_IN, nonce=nonce).is_success
    with served(create_app(open_service(settings, clock)), settings) as http:
        device.http = http
        answer = device.send("POST", "/check-ins", CHECK_IN, nonce=nonce)
        assert problem(answer) == (401, "replayed_request")


def test_nonces_are_forgotten_only_after_their_signature_is_too_old(
    device: FakeDevice, service: Service, clock: FakeClock
) -> None:
    # Signed 300 s ahead of the service, so acceptable for 600 s more.
    ahead = int(clock().timestamp()) + 300
    assert device.send("POST", "/check-ins", CHECK_IN, created=ahead, nonce="ahead-of-time-01").is_success
    clock.advance(600)
    assert "ahead-of-time-01" in kept(service)
    answer = device.send("POST", "/check-ins", CHECK_IN, created=ahead, nonce="ahead-of-time-01")
    assert problem(answer) == (401, "replayed_request")
    clock.advance(600)  # and as long again for processes whose clocks differ
    assert "ahead-of-time-01" in kept(service)
    clock.advance(1)
    assert kept(service) == []
    answer = device.send("POST", "/check-ins", CHECK_IN, created=ahead, nonce="ahead-of-time-01")
    assert problem(answer) == (401, "clock_skew")


def test_worker_whose_clock_is_ahead_forgets_no_nonce_that_another_process_needs(
    settings: Settings, device: FakeDevice, service: Service, clock: FakeClock
) -> None:
    created = int(clock().timestamp()) + 300
    assert device.send("POST", "/check-ins", CHECK_IN, created=created, nonce="ahead-of-time-01").is_success
    behind, ahead = FakeClock(clock() - timedelta(seconds=300)), FakeClock(clock() + timedelta(seconds=300))
    with served(create_app(open_service(settings, behind)), settings) as http:
        device.http = http

        def replayed_after(seconds: float) -> tuple[int, str]:
            behind.advance(seconds)
            ahead.advance(seconds)
            sweep(replace(service, clock=ahead))
            sent = device.send("POST", "/check-ins", CHECK_IN, created=created, nonce="ahead-of-time-01")
            return problem(sent)

        # 900 s later the clock that is behind is 300 s past what was signed.
        assert replayed_after(900) == (401, "replayed_request")
        assert replayed_after(1) == (401, "clock_skew")


def kept(service: Service) -> list[str]:
    """The nonces that a sweep leaves."""
    sweep(service)
    with service.database.read() as session:
        return list(session.scalars(select(NonceRow.nonce)))


def test_refused_signatures_leave_no_nonces(
    device: FakeDevice, http: httpx.Client, clock: FakeClock, service: Service
) -> None:
    def count() -> int:
        with service.database.read() as session:
            return session.scalar(select(func.count()).select_from(NonceRow)) or 0

    before = count()
    FakeDevice(http, clock, seed=9).send("POST", "/check-ins", CHECK_IN, key_id=device.device_id)
    assert count() == before


def test_body_that_is_not_the_signed_one_is_refused(device: FakeDevice) -> None:
    answer = device.send("POST", "/check-ins", CHECK_IN, digest="0" * 64)
    assert problem(answer) == (422, "digest_mismatch")


def test_digest_header_that_is_not_the_signed_one_is_refused(device: FakeDevice) -> None:
    headers = {"Content-Digest": content_digest("0" * 64)}
    answer = device.send("POST", "/check-ins", CHECK_IN, headers=headers)
    assert problem(answer) == (401, "authentication_failed")


def test_signature_of_another_path_or_query_is_refused(device: FakeDevice, http: httpx.Client) -> None:
    headers = device.signed("GET", f"/device/v1/objects/{'0' * 64}")
    for path in (f"/device/v1/objects/{'1' * 64}", f"/device/v1/objects/{'0' * 64}?part=1"):
        assert problem(http.get(path, headers=headers)) == (401, "authentication_failed")


@pytest.mark.parametrize("header", ["sha-256=:short=:", "md5=:abc:", "sha-256=:" + "A" * 43 + "=:, x=1"])
def test_malformed_digest_header_is_refused(device: FakeDevice, header: str) -> None:
    answer = device.send("POST", "/check-ins", CHECK_IN, headers={"Content-Digest": header})
    assert problem(answer) == (422, "malformed_message")


def test_missing_digest_header_is_refused(device: FakeDevice, http: httpx.Client) -> None:
    headers = device.signed("POST", "/device/v1/check-ins")
    del headers["Content-Digest"]
    answer = http.post("/device/v1/check-ins", headers=headers)
    assert problem(answer) == (401, "authentication_failed")


def test_suspended_device_is_turned_away_until_accepted_again(device: FakeDevice, operator: Operator) -> None:
    path = f"/devices/{device.device_id}:decide"
    operator.call("POST", path, json={"state": "suspended", "reason": "stolen"})
    answer = device.send("POST", "/check-ins", CHECK_IN)
    assert problem(answer) == (403, "not_permitted")
    assert answer.json()["got"] == "state suspended: stolen"
    operator.call("POST", path, json={"state": "accepted"})
    assert device.send("POST", "/check-ins", CHECK_IN).is_success


def test_device_of_another_population_is_refused(device: FakeDevice) -> None:
    answer = device.send("POST", "/check-ins", {**CHECK_IN, "population": "camera"})
    assert problem(answer) == (403, "not_permitted")


@pytest.mark.parametrize("version", [0, 2])
def test_another_protocol_version_is_told_those_that_are_spoken(device: FakeDevice, version: int) -> None:
    # Fields that only a newer version has are not held against it.
    told = {**CHECK_IN, "protocol_version": version, "of_a_newer_version": 1}
    answer = device.send("POST", "/check-ins", told)
    assert problem(answer) == (422, "protocol_unsupported")
    assert (answer.json()["got"], answer.json()["expected"]) == (str(version), "1")
    assert answer.json()["protocol_versions"] == [1]


def test_protocol_version_that_is_no_number_is_refused_by_the_schema(device: FakeDevice) -> None:
    answer = device.send("POST", "/check-ins", {**CHECK_IN, "protocol_version": "1"})
    assert problem(answer) == (422, "malformed_message")


@pytest.mark.parametrize("population", ["keyboard", "camera"])
def test_wrong_enrolment_token_and_unknown_population_are_told_alike(
    http: httpx.Client, clock: FakeClock, population: str
) -> None:
    device = FakeDevice(http, clock)
    message = {"population": population, "enrolment_token": "guess", "public_key": device.public_key}
    answer = device.send("POST", "/devices", message)
    assert problem(answer) == (401, "authentication_failed")
    assert answer.json()["detail"] == "enrolment token does not admit to this population"


def test_enrolment_signed_by_another_key_is_refused(
    http: httpx.Client, clock: FakeClock, enrolment_token: str
) -> None:
    device, other = FakeDevice(http, clock, seed=1), FakeDevice(http, clock, seed=2)
    message = {
        "population": "keyboard",
        "enrolment_token": enrolment_token,
        "public_key": other.public_key,
    }
    assert problem(device.send("POST", "/devices", message)) == (401, "authentication_failed")
    answer = device.send("POST", "/devices", message, key_id=other.device_id)
    assert problem(answer) == (401, "authentication_failed")


def test_replayed_enrolment_is_refused(http: httpx.Client, clock: FakeClock, enrolment_token: str) -> None:
    device = FakeDevice(http, clock)
    message = {
        "population": "keyboard",
        "enrolment_token": enrolment_token,
        "public_key": device.public_key,
    }
    answers = [device.send("POST", "/devices", message, nonce="enrol-me-twice-01") for _ in range(2)]
    assert answers[0].status_code == 201
    assert problem(answers[1]) == (401, "replayed_request")


def test_updates_are_never_served(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str
) -> None:
    operator.run(bundle, goal_count=2)
    device = make_device(1)
    assignment_id = device.started()
    ref = device.upload(assignment_id, make_adapter(2)).json()
    answer = make_device(2).send("GET", f"/objects/{ref['sha256']}")
    assert problem(answer) == (404, "not_found")
