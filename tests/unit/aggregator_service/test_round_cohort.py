"""Who is asked for a round, and what becomes of places that are given back or run out."""

from __future__ import annotations

from collections.abc import Callable

from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from sqlalchemy import JSON, column, select, table, update

from aggregator_service.service import Service

MakeDevice = Callable[[int], FakeDevice]
TOO_OFTEN = "this device gave the round back, or let its lease run out, too often"


def test_cohort_is_bounded_and_given_back_places_are_given_again(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    # ceil(2 * 1.5) = 3 places
    run_id = operator.run(bundle, goal_count=2, over_selection=1.5)
    devices = [make_device(seed) for seed in (1, 2, 3, 4)]
    first = devices[0].offer()
    for other in devices[1:3]:
        other.offer()
    assert [row["state"] for row in operator.items(f"/runs/{run_id}/rounds")] == ["collecting"]
    refused = devices[3].check_in()
    assert (refused["offer"], refused["reason"]) == (None, "the cohort is complete")
    assert 5 <= refused["retry_after_seconds"] < 16
    failure = {"code": "device_too_small", "message": "no rank fits"}
    receipt = devices[0].call("POST", f"/assignments/{first['assignment_id']}:fail", failure)
    assert (receipt["state"], receipt["reason"]) == ("failed", "device_too_small: no rank fits")
    assert devices[3].check_in()["offer"] is not None


def test_device_that_gives_a_round_back_too_often_is_not_asked_again_in_it(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    for _ in range(3):
        offer = device.offer()
        failure = {"code": "not_charging", "message": ""}
        device.call("POST", f"/assignments/{offer['assignment_id']}:fail", failure)
    assert device.check_in()["reason"] == TOO_OFTEN


def test_device_that_lets_its_leases_run_out_cannot_hold_a_place_for_ever(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, lease_seconds=60, report_window_seconds=600)
    holding, waiting = make_device(1), make_device(2)
    for _ in range(3):
        holding.offer()
        assert waiting.check_in()["reason"] == "the cohort is complete"
        clock.advance(60)
    assert holding.check_in()["reason"] == TOO_OFTEN
    assert waiting.check_in()["offer"] is not None


def test_expired_lease_frees_its_place_and_a_late_report_is_told_so(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, lease_seconds=60, report_window_seconds=600)
    slow, quick = make_device(1), make_device(2)
    assignment_id = slow.started()
    slow.upload(assignment_id, make_adapter(2))
    assert quick.check_in()["offer"] is None
    clock.advance(60)
    assert quick.check_in()["offer"] is not None
    late = slow.submit(assignment_id, make_adapter(2))
    assert late.status_code == 200
    assert (late.json()["state"], late.json()["reason"]) == ("expired", "the lease ran out")


def test_leftover_assignments_are_aborted_kindly_when_the_goal_is_met(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, goal_count=1, over_selection=2.0)
    quick, slow = make_device(1), make_device(2)
    assignment_id = slow.started()
    slow.upload(assignment_id, make_adapter(2))
    quick.deliver(make_adapter(2))
    operator.committed(run_id)
    late = slow.submit(assignment_id, make_adapter(2))
    assert late.status_code == 200
    assert (late.json()["state"], late.json()["reason"]) == ("aborted", "goal already met")
    failure = {"code": "late", "message": ""}
    assert slow.call("POST", f"/assignments/{assignment_id}:fail", failure)["state"] == "aborted"


def test_offer_says_when_the_run_lets_devices_work(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    asked = {"charging": True, "hours": ["22:00-06:00"]}
    operator.run(bundle, conditions=asked)
    told = device.offer()["conditions"]
    assert {name: own for name, own in told.items() if own} == asked


def test_offer_of_a_run_that_asks_for_nothing_is_as_it_was_before_conditions(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    assert "conditions" not in device.offer()


def test_device_that_gave_the_round_back_for_conditions_is_asked_again_however_often(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    for _ in range(10):
        path = f"/assignments/{device.offer()['assignment_id']}:fail"
        device.call("POST", path, {"code": "conditions_unmet", "message": "this device may not work now"})
    assert device.check_in()["offer"] is not None


def test_device_without_examples_gets_no_offer(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle)
    assert device.check_in(example_count=0)["reason"] == "the device has no examples"


def test_run_that_cannot_be_served_leaves_its_devices_to_the_next(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    broken, sound = operator.run(bundle), operator.run(bundle)
    runs = table("runs", column("id"), column("settings", JSON))
    with service.database.write() as session:
        settings = session.scalars(select(runs.c.settings).where(runs.c.id == broken)).one()
        unheard_of = settings | {"lease_seconds": 1e300}
        session.execute(update(runs).where(runs.c.id == broken).values(settings=unheard_of))
    assert device.offer()["run_id"] == sound


def test_device_is_accepted_once_in_a_round(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle, goal_count=2)
    device.deliver(make_adapter(2))
    answer = device.check_in()
    assert (answer["offer"], answer["reason"]) == (None, "this device's update of the round is in")


def test_cohort_size_of_a_binary_fraction_is_what_the_operator_means(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    # 1.1 * 10 = 11.000000000000002 in binary
    operator.run(bundle, goal_count=10, over_selection=1.1)
    answers = [make_device(seed).check_in() for seed in range(1, 13)]
    assert [answer["offer"] is not None for answer in answers] == [True] * 11 + [False]
