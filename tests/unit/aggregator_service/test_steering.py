"""What the service tells devices about when to come back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_verbs import add_device
from sqlalchemy import update

from aggregator_service.pace.steering import IDLE_FACTOR, come_back_seconds
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import DeviceRow
from hetlora.errors import SettingsError

MakeDevice = Callable[[int], FakeDevice]


def test_devices_come_back_when_the_round_is_likely_to_end(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    run_id = operator.run(bundle, rounds=3)
    device, other = make_device(1), make_device(2)
    clock.advance(500)  # that nobody came is not how long a round takes
    assignment_id = device.started()
    clock.advance(90)
    device.upload(assignment_id, make_adapter(2))
    device.submit(assignment_id, make_adapter(2))
    operator.committed(run_id)
    device.started()
    clock.advance(30)
    # The last round took 90 s from its first offer, and this one began 30 s ago; two devices come in 0.02 s.
    answer = other.check_in()
    assert answer["reason"] == "the cohort is complete"
    assert 60 <= answer["retry_after_seconds"] < 60.1


def test_accepted_device_comes_back_for_the_next_round(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    run_id = operator.run(bundle, rounds=3, goal_count=2)
    one, two = make_device(1), make_device(2)
    one.deliver(make_adapter(2))
    clock.advance(40)
    two.deliver(make_adapter(2))
    operator.committed(run_id)
    assert 40 <= one.deliver(make_adapter(2))["retry_after_seconds"] < 40.1


def test_device_waits_longer_where_there_is_nothing_to_do(
    operator: Operator, device: FakeDevice, bundle: str, settings: Settings
) -> None:
    idle = device.check_in()
    assert idle["reason"] == "no run is active"
    least = IDLE_FACTOR * settings.least_retry_seconds
    assert least <= idle["retry_after_seconds"] < 3 * least + 1
    operator.run(bundle)
    failure = {"code": "late", "message": ""}
    path = f"/assignments/{device.offer()['assignment_id']}:fail"
    assert device.call("POST", path, failure)["retry_after_seconds"] >= least


def test_more_devices_come_more_seldom_and_those_that_left_count_no_more(
    settings: Settings, clock: FakeClock
) -> None:
    slow = settings.model_copy(update={"check_ins_per_second": 0.1})
    with closing(open_service(slow, clock)) as service:
        check_live_devices(service, clock)


def check_live_devices(service: Service, clock: FakeClock) -> None:
    def waits() -> float:
        return max(come_back_seconds(service, "keyboard", f"{n}", clock()) for n in range(20))

    for number in range(30):
        add_device(service, f"device-{number}")
    # Nobody has been in contact: it is as if the one who asks were alone.
    assert waits() < 31  # 1 / 0.1 = 10 s
    with service.database.write() as session:
        session.execute(update(DeviceRow).values(last_contact_at=clock()))
    assert waits() < 31  # counted a moment ago
    clock.advance(31)
    assert waits() > 200  # 30 / 0.1 = 300 s
    clock.advance(service.settings.most_retry_seconds)
    assert waits() < 31


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(SettingsError, match="HETLORA_MOST_RETRY_SECONDS"):
        Settings(least_retry_seconds=10, most_retry_seconds=9.9)
