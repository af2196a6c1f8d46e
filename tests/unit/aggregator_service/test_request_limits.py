"""How many requests one device, and strangers together, may make in a minute."""

from __future__ import annotations

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_operator import Operator
from service_server import problem
from sqlalchemy import func, select

from aggregator_service.service import Service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import NonceRow

NOTHING = f"/objects/{'0' * 64}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Three requests of a device, two refused enrolments."""
    return settings.model_copy(update={"max_requests_per_minute": 3, "max_refused_enrolments_per_minute": 2})


def nonces(service: Service) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(NonceRow)) or 0


def test_device_that_asks_too_often_is_told_when_to_come_back(
    device: FakeDevice, clock: FakeClock, service: Service
) -> None:
    # The enrolment was the first request, at second 0; these come at seconds 10 and 20.
    for _ in range(2):
        clock.advance(10)
        assert device.send("GET", NOTHING).status_code == 404
    before = nonces(service)
    clock.advance(10.5)

    answer = device.send("GET", NOTHING)

    assert problem(answer) == (429, "too_many_requests")
    assert answer.headers["retry-after"] == "30"  # of 29.5 s until the first is a minute old
    assert nonces(service) == before
    clock.advance(29.5)
    assert device.send("GET", NOTHING).status_code == 404
    assert device.send("GET", NOTHING).status_code == 429


def test_clock_that_a_device_claims_does_not_move_its_limit(device: FakeDevice, clock: FakeClock) -> None:
    now = int(clock().timestamp())
    codes = [device.send("GET", NOTHING, created=now + skew).status_code for skew in (-300, 300, 0, -299)]
    assert codes == [404, 404, 429, 429]


def test_limit_of_one_device_leaves_others_alone(
    device: FakeDevice, http: httpx.Client, clock: FakeClock, enrolment_token: str
) -> None:
    while device.send("GET", NOTHING).status_code != 429:
        pass
    other = FakeDevice(http, clock, seed=2).enrol(enrolment_token)
    assert other.send("GET", NOTHING).status_code == 404


def test_wrong_tokens_are_limited_and_a_right_one_still_admits(
    http: httpx.Client, clock: FakeClock, enrolment_token: str, operator: Operator
) -> None:
    stranger = FakeDevice(http, clock, seed=3)

    def guess(population: str) -> httpx.Response:
        message = {"population": population, "enrolment_token": "guess", "public_key": stranger.public_key}
        return stranger.send("POST", "/devices", message)

    # Whether there is such a population makes no difference.
    assert [guess(name).status_code for name in ("keyboard", "camera")] == [401, 401]
    for name in ("keyboard", "camera"):
        answer = guess(name)
        assert problem(answer) == (429, "too_many_requests")
        assert answer.headers["retry-after"] == "60"
    stranger.enrol(enrolment_token)
    clock.advance(60)
    assert (
        FakeDevice(http, clock, seed=4)
        .send(
            "POST",
            "/devices",
            {
                "population": "camera",
                "enrolment_token": "x",
                "public_key": FakeDevice(http, clock, 4).public_key,
            },
        )
        .status_code
        == 401
    )
