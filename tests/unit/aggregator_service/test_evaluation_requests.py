"""Evaluations over HTTP: what devices are answered, and what operators see."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from evaluation_verbs import asked, evaluated_run
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_server import problem
from service_verbs import add_device

from aggregator_service.service import Service

MakeDevice = Callable[[int], FakeDevice]
EVALUATION = {"devices": 2, "minimum_reports": 2}
REPORT = {"example_count": 10, "loss": 0.5, "correct_count": 4}


@pytest.fixture
def run_id(operator: Operator, device: FakeDevice, bundle: str) -> str:
    """A completed run whose one version waits to be evaluated."""
    run_id = operator.run(bundle, rounds=1, evaluation=EVALUATION)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    return run_id


def evaluate(device: FakeDevice, rank: int = 1) -> str:
    offer = device.check_in(held_out_count=10)["offer"]
    assert offer["kind"] == "evaluate"
    path = f"/evaluations/{offer['assignment_id']}"
    plan = device.call("POST", f"{path}:start", {"rank": rank})
    assert device.send("GET", f"/objects/{plan['adapter']['sha256']}").is_success
    return path


def test_evaluation_from_its_offer_to_its_figures(
    operator: Operator, make_device: MakeDevice, device: FakeDevice, run_id: str
) -> None:
    for own in (device, make_device(2)):
        path = evaluate(own)
        receipts = [own.call("POST", f"{path}:submit", REPORT) for _ in range(2)]
        assert [receipt["state"] for receipt in receipts] == ["accepted", "accepted"]
    newest, initial = operator.call("GET", f"/runs/{run_id}/adapters")["items"]
    assert initial["evaluation"] is None
    assert (newest["evaluation"]["state"], newest["evaluation"]["reports"]) == ("closed", 2)
    assert newest["evaluation"]["figures"]["loss"] == 0.5
    moves = operator.call("GET", f"/transitions?subject=evaluation&subject_id={newest['version']}")["items"]
    assert [(move["old"], move["new"], move["reason"]) for move in moves] == [
        (None, "open", "1 rounds committed"),
        ("open", "closed", "2 reports are in"),
    ]


def test_sdk_that_knows_no_evaluations_is_sent_nothing_of_them(
    operator: Operator, make_device: MakeDevice, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2, evaluation=EVALUATION)
    assert "kind" not in device.offer()
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    others = [make_device(number) for number in (2, 3)]
    assert "kind" not in others[0].offer()
    assert others[1].check_in()["offer"] is None


@pytest.mark.parametrize(
    "spoiled",
    [
        {"loss": -1},
        {"loss": 1e9},
        {"correct_count": 11},
        {"example_count": 0},
        {"text": "where is my parcel"},
    ],
    ids=str,
)
def test_report_that_cannot_be_is_refused(
    device: FakeDevice, run_id: str, spoiled: dict[str, object]
) -> None:
    answer = device.send("POST", f"{evaluate(device)}:submit", REPORT | spoiled)
    assert problem(answer) == (422, "malformed_message")


def test_loss_that_is_no_number_is_refused(device: FakeDevice, run_id: str) -> None:
    body = b'{"example_count": 10, "loss": NaN, "correct_count": 4}'
    assert device.send("POST", f"{evaluate(device)}:submit", content=body).status_code == 422


def test_evaluation_takes_no_update(device: FakeDevice, run_id: str) -> None:
    assignment_id = evaluate(device).rsplit("/", 1)[1]
    assert device.upload(assignment_id, make_adapter(1)).status_code == 404


def test_evaluation_that_was_given_back_stays_so(device: FakeDevice, run_id: str) -> None:
    path = evaluate(device)
    receipt = device.call("POST", f"{path}:fail", {"code": "no_examples", "message": "none is left"})
    assert receipt["state"] == "failed"
    assert device.call("POST", f"{path}:submit", REPORT)["state"] == "failed"
    assert device.check_in(held_out_count=10)["offer"] is None


def test_no_more_are_asked_than_wanted_and_none_twice_however_many_come_at_once(
    service: Service, bundle: str
) -> None:
    evaluated_run(service, bundle, devices=3)
    devices = [add_device(service, f"device-{number}") for number in range(4)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda device: asked(service, device), devices * 2))
    offers = {device: set() for device in devices}
    for device, answer in zip(devices * 2, answers, strict=True):
        offers[device] |= set() if answer.offer is None else {answer.offer.assignment_id}
    assert sorted(map(len, offers.values())) == [0, 1, 1, 1]
