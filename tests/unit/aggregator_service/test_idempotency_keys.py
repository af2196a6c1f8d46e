"""Creations that an operator asks for twice, as the first answer was lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from pydantic import SecretStr
from service_operator import TOKEN, Operator
from service_server import problem, served
from service_tables import every_value

from aggregator_service.app import create_app
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.worker.sweep import sweep
from hetlora.digest import sha256_of

DAY_SECONDS = 24 * 3600
POPULATION = ("/populations", {"name": "camera"})
KEY = ("/keys", {"name": "alice", "role": "viewer"})
ROTATION = ("/populations/keyboard:rotate-token", {"token_valid_seconds": 3600.0})


def ask(operator: Operator, request: tuple[str, dict[str, Any]], key: str | None = "key-1") -> httpx.Response:
    path, message = request
    return operator.send("POST", path, json=message, headers={"Idempotency-Key": key} if key else {})


@pytest.fixture
def run_request(bundle: str) -> tuple[str, dict[str, Any]]:
    settings = {"goal_count": 1, "max_rank": 2}
    return "/runs", {"population": "keyboard", "bundle": bundle, "settings": settings}


def test_repeated_creation_answers_the_first_and_makes_nothing_new(
    operator: Operator, run_request: tuple[str, dict[str, Any]]
) -> None:
    for number, request in enumerate((POPULATION, KEY, run_request)):
        first = ask(operator, request, f"key-{number}")
        assert first.status_code == 201
        again = ask(operator, request, f"key-{number}")
        assert (again.status_code, again.json()) == (201, first.json())
    assert len(operator.items("/runs")) == 1
    assert len(operator.items("/keys")) == 1
    assert {item["name"] for item in operator.items("/populations")} == {"camera", "keyboard"}


def test_repeated_answer_has_the_secrets_that_work(
    operator: Operator, http: httpx.Client, clock: FakeClock
) -> None:
    ask(operator, POPULATION)
    token = ask(operator, POPULATION).json()["enrolment_token"]
    FakeDevice(http, clock, 7).enrol(token, "camera")
    ask(operator, KEY, "key-2")
    Operator(http, ask(operator, KEY, "key-2").json()["token"]).call("GET", "/runs")


def test_repeated_rotation_answers_the_token_of_the_first(
    operator: Operator, http: httpx.Client, clock: FakeClock
) -> None:
    first = ask(operator, ROTATION)
    clock.advance(60)
    again = ask(operator, ROTATION)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.json()["token_expires_at"] == "2026-11-20T13:00:00Z"
    FakeDevice(http, clock, 7).enrol(again.json()["enrolment_token"])


def test_rotations_without_a_key_make_a_token_each(operator: Operator) -> None:
    assert (
        len({ask(operator, ROTATION, key).json()["enrolment_token"] for key in (None, None, "a", "b")}) == 4
    )


def test_token_that_was_replaced_since_is_not_told_again(
    operator: Operator, http: httpx.Client, clock: FakeClock
) -> None:
    ask(operator, ROTATION)
    newest = ask(operator, ROTATION, "key-2").json()["enrolment_token"]
    assert problem(ask(operator, ROTATION)) == (409, "state_conflict")
    FakeDevice(http, clock, 7).enrol(newest)  # which the repetition left as it is


def test_rotation_is_repeated_for_its_own_population_alone(operator: Operator) -> None:
    assert ask(operator, POPULATION, "key-2").status_code == 201
    assert ask(operator, ROTATION).status_code == 200
    elsewhere = ("/populations/camera:rotate-token", ROTATION[1])
    assert problem(ask(operator, elsewhere)) == (422, "idempotency_key_reused")
    longer = (ROTATION[0], {"token_valid_seconds": 7200.0})
    assert problem(ask(operator, longer)) == (422, "idempotency_key_reused")


def test_rotations_at_the_same_time_make_one_token(operator: Operator) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(operator, ROTATION), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.json()["enrolment_token"] for answer in answers}) == 1


def test_secrets_are_stored_in_no_form_that_opens_anything(operator: Operator, service: Service) -> None:
    tokens = [
        ask(operator, request, f"of-{request[0]}").json()["enrolment_token"]
        for request in (POPULATION, ROTATION)
    ]
    created = ask(operator, KEY, "key-2").json()
    values = every_value(service)
    for token in tokens:
        assert sha256_of(token.encode()) in values
        assert token not in values
    assert created["token"].partition(created["key"]["key_id"])[2][1:] not in values
    assert TOKEN not in values
    assert sha256_of(TOKEN.encode()) not in values


def test_secrets_of_different_keys_and_operators_differ(operator: Operator) -> None:
    alice = Operator(
        operator.http, operator.call("POST", "/keys", json={"name": "alice", "role": "admin"})["token"]
    )
    made = [ask(by, KEY, key).json() for by in (operator, alice) for key in ("key-1", "key-2", None, None)]
    assert len({item["token"][-43:] for item in made}) == 8
    assert len({item["key"]["key_id"] for item in made}) == 8


@pytest.mark.parametrize(
    "other", [("/populations", {"name": "radio"}), ("/keys", {**KEY[1], "name": "bob"}), KEY]
)
def test_key_with_another_request_is_refused(operator: Operator, other: tuple[str, dict[str, Any]]) -> None:
    assert ask(operator, POPULATION).status_code == 201
    assert problem(ask(operator, other)) == (422, "idempotency_key_reused")
    assert operator.items("/keys") == []


def test_run_under_the_key_of_another_run_is_refused(
    operator: Operator, run_request: tuple[str, dict[str, Any]]
) -> None:
    path, message = run_request
    assert ask(operator, run_request).status_code == 201
    other = {**message, "settings": {**message["settings"], "goal_count": 2}}
    assert problem(ask(operator, (path, other))) == (422, "idempotency_key_reused")
    assert len(operator.items("/runs")) == 1


def test_message_counts_and_not_how_it_is_written(operator: Operator) -> None:
    headers = {"Idempotency-Key": "key-1", "Content-Type": "application/json"}
    first = operator.call("POST", "/keys", content=b'{"name":"a","role":"viewer"}', headers=headers)
    again = operator.call("POST", "/keys", content=b'{ "role": "viewer", "name": "a" }', headers=headers)
    assert again == first


def test_refusal_is_not_remembered(operator: Operator) -> None:
    taken = ("/populations", {"name": "keyboard"})
    assert problem(ask(operator, taken)) == (409, "state_conflict")
    assert ask(operator, POPULATION).status_code == 201  # the key is as good as new


def test_key_is_good_for_a_day(operator: Operator, clock: FakeClock, service: Service) -> None:
    first = ask(operator, KEY).json()
    clock.advance(DAY_SECONDS - 1)
    assert ask(operator, KEY).json() == first
    clock.advance(1)
    second = ask(operator, KEY).json()
    assert second["key"]["key_id"] != first["key"]["key_id"]
    assert second["token"][-43:] != first["token"][-43:]
    clock.advance(DAY_SECONDS)
    assert "key-1" in every_value(service)
    sweep(service)
    assert "key-1" not in every_value(service)


def test_run_under_a_key_of_yesterday_is_a_new_one(
    operator: Operator, clock: FakeClock, run_request: tuple[str, dict[str, Any]]
) -> None:
    first = ask(operator, run_request).json()
    clock.advance(DAY_SECONDS)
    assert ask(operator, run_request).json()["run_id"] != first["run_id"]


def test_requests_at_the_same_time_make_one(
    operator: Operator, run_request: tuple[str, dict[str, Any]]
) -> None:
    answers: list[httpx.Response] = []
    start = threading.Barrier(4)

    def once() -> None:
        start.wait()
        answers.append(ask(operator, run_request))

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len(operator.items("/runs")) == 1


def test_repetition_may_come_to_another_process(settings: Settings, clock: FakeClock) -> None:
    def asked() -> Any:
        with served(create_app(open_service(settings, clock)), settings) as http:
            return ask(Operator(http), KEY).json()

    assert asked() == asked()


@pytest.mark.parametrize("request_", [POPULATION, KEY, ROTATION])
def test_repetition_with_a_new_first_token_cannot_tell_the_old_secret(
    settings: Settings, clock: FakeClock, request_: tuple[str, dict[str, Any]]
) -> None:
    with served(create_app(open_service(settings, clock)), settings) as http:
        assert ask(Operator(http), request_).is_success
    changed = settings.model_copy(update={"operator_token": SecretStr("another-token-of-the-tests")})
    with served(create_app(open_service(changed, clock)), changed) as http:
        answer = ask(Operator(http, "another-token-of-the-tests"), request_)
        assert problem(answer) == (409, "state_conflict")


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "ä"])
def test_key_that_is_none_is_refused(operator: Operator, key: str) -> None:
    headers = [("Idempotency-Key", key.encode("latin-1"))]
    answer = operator.http.post(
        "/management/v1/keys",
        json=KEY[1],
        headers=[("Authorization", f"Bearer {TOKEN}"), *headers],
    )
    assert problem(answer) == (422, "malformed_message")
