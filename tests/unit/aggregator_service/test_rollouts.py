"""Rollouts: whom they ask, what moves them on, and what brings devices back."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from rollout_verbs import (
    ONE_STAGE,
    asked,
    made_versions,
    offered,
    reasons,
    report_of,
    running,
    state_of,
    status,
    taken,
    told,
    version_state,
)
from service_verbs import CHECK_IN, add_device, started_run, take_offer
from sqlalchemy.orm import Session

from aggregator_service.devices.admission import decide
from aggregator_service.rollouts import rollouts
from aggregator_service.rollouts.adopting import fail, start, submit
from aggregator_service.rollouts.asking import check_in, is_in_share
from aggregator_service.rollouts.rollouts import change_rollout, create_rollout
from aggregator_service.service import Service
from aggregator_service.storage.rollout_tables import RolloutDeviceRow
from aggregator_service.storage.tables import StatefulRow
from aggregator_service.worker.worker import tick
from hetlora.errors import DigestMismatch, NotFound, RankOutOfRange, SettingsError, StateConflict
from hetlora.messages.device import Failure
from hetlora.messages.fleet import DeviceDecision
from hetlora.messages.rollouts import RolloutCreate
from hetlora.states import AssignmentState, DeviceState, RolloutState

FAILURE = Failure(code="device_too_small", message="no room")
TWO_STAGES = [{"share": 0.5, "least_reports": 1}, {"share": 1.0, "least_reports": 3}]


@pytest.fixture
def versions(service: Service, bundle: str) -> list[str]:
    return made_versions(service, bundle, 2)


@pytest.fixture
def devices(service: Service) -> list[str]:
    return [add_device(service, f"device-{number}") for number in range(6)]


def test_good_version_reaches_the_group_and_supersedes_the_one_before(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    for version in versions[1:]:
        rollout_id = running(service, version)
        for device in devices[:3]:
            assert told(service, device).state is AssignmentState.ACCEPTED
        tick(service)
        found = status(service, rollout_id)
        assert (found.state, found.counts.adopted) == ("completed", 3)
    assert [version_state(service, version) for version in versions] == [
        "candidate",
        "superseded",
        "rolled_out",
    ]
    assert found.former == versions[1]
    # A device that comes late is asked all the same, and by the newest alone.
    told(service, devices[5])
    assert asked(service, devices[5]).offer is None
    assert status(service, rollout_id).counts.adopted == 4


def test_failures_beyond_the_share_roll_back_and_say_why(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    rollout_id = running(service, versions[1])
    ask_id, bad = taken(service, devices[0])
    submit(service, devices[0], ask_id, report_of(bad))
    for device in devices[1:3]:
        fail(service, device, offered(service, device).assignment_id, FAILURE)
    tick(service)
    why = "stage 1 of 1: 2 of 3 devices failed or fell silent, more than the share of 0.1 that may"
    assert reasons(service, "rollout", rollout_id)[-1] == ("rolled_back", why)
    state, reason = reasons(service, "adapter_version", versions[1])[-1]
    assert (state, reason) == ("rolled_back", f"rollout {rollout_id} rolled back: {why}")
    # Who adopted is offered the one before, to be taken whatever it scores; who failed is not.
    back = offered(service, devices[0])
    assert (back.takes_back, back.assignment_id) == (True, ask_id)
    plan = start(service, devices[0], ask_id, 1)
    assert plan.adapter.sha256 != bad
    submit(service, devices[0], ask_id, report_of(plan.adapter.sha256))
    assert [state for state, _ in reasons(service, "rollout_device", ask_id)] == [
        "offered",
        "started",
        "adopted",
        "recalled",
        "reverted",
    ]
    assert all(asked(service, device).offer is None for device in devices)


@pytest.mark.parametrize(("new_loss", "state"), [(0.75, "completed"), (1.25, "rolled_back")])
def test_loss_that_rises_by_more_than_it_may_rolls_back(
    service: Service, versions: list[str], devices: list[str], new_loss: float, state: str
) -> None:
    stage = {"share": 1.0, "least_reports": 2, "most_loss_increase": 0.25}
    rollout_id = running(service, versions[1], stages=[stage])
    for device in devices[:2]:
        told(service, device, losses=(new_loss, 0.5))
    tick(service)  # two losses are nobody's figure
    assert status(service, rollout_id).state == "running"
    told(service, devices[2], "kept", losses=(new_loss, 0.5))
    tick(service)
    found = status(service, rollout_id)
    assert found.state == state
    assert (found.stages_decided[0].compared, found.stages_decided[0].loss_increase) == (3, new_loss - 0.5)


def test_later_stage_asks_the_devices_of_the_first_and_more(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    rollout_id = running(service, versions[1], stages=TWO_STAGES)
    first = [device for device in devices if asked(service, device).offer is not None]
    assert first == [device for device in devices if is_in_share(rollout_id, device, 0.5)]
    told(service, (first or [add_in_share(service, rollout_id)])[0])
    tick(service)
    assert status(service, rollout_id).stage == 2
    assert all(asked(service, device).offer is not None for device in devices if device not in first[:1])


def add_in_share(service: Service, rollout_id: str) -> str:
    names = (f"more-{number}" for number in range(100))
    return add_device(service, next(name for name in names if is_in_share(rollout_id, name, 0.5)))


def test_stage_neither_moves_on_before_it_settled_nor_in_a_freeze_window(
    service: Service, versions: list[str], devices: list[str], clock: FakeClock
) -> None:
    began, hour = clock(), timedelta(hours=1)
    window = {"begins_at": (began + hour).isoformat(), "ends_at": (began + 2 * hour).isoformat()}
    stage = {"share": 1.0, "least_reports": 1, "settle_seconds": 1800}
    rollout_id = running(service, versions[1], stages=[stage], freeze=[window])
    told(service, devices[0])
    for minutes, state in ((29, "running"), (60, "running"), (119, "running"), (120, "completed")):
        clock.advance((began + timedelta(minutes=minutes) - clock()).total_seconds())
        tick(service)
        assert status(service, rollout_id).state == state


def test_paused_rollout_asks_nobody_and_is_rolled_back_all_the_same(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    rollout_id = running(service, versions[1], stages=[{"share": 1.0, "least_reports": 1}])
    ask_id, _ = taken(service, devices[0])
    change_rollout(service, rollout_id, "pause")
    assert asked(service, devices[1]).offer is None
    assert offered(service, devices[0]).assignment_id == ask_id  # who has begun goes on
    fail(service, devices[0], ask_id, FAILURE)
    tick(service)
    assert status(service, rollout_id).state == "rolled_back"


def test_resumed_rollout_goes_on(service: Service, versions: list[str], devices: list[str]) -> None:
    rollout_id = running(service, versions[1])
    for verb in ("pause", "resume"):
        change_rollout(service, rollout_id, verb)  # type: ignore[arg-type]
    assert offered(service, devices[0])


def test_device_that_falls_silent_counts_as_failed_until_it_is_heard_of(
    service: Service, versions: list[str], devices: list[str], clock: FakeClock
) -> None:
    stage = {"share": 1.0, "least_reports": 2, "most_failed_share": 0.4}
    rollout_id = running(service, versions[1], stages=[stage], lease_seconds=60)
    taken(service, devices[0])
    clock.advance(60)
    assert status(service, rollout_id).counts.silent == 1
    taken(service, devices[0])  # it came back
    assert status(service, rollout_id).counts.silent == 0
    clock.advance(60)
    told(service, devices[1])
    tick(service)
    assert status(service, rollout_id).state == "rolled_back"
    # It may have the version in use, and had no time to tell.
    assert offered(service, devices[0]).takes_back


def test_stopped_rollout_leaves_what_was_adopted_and_can_be_rolled_back_later(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    rollout_id = running(service, versions[1])
    told(service, devices[0])
    ask_id = offered(service, devices[1]).assignment_id
    change_rollout(service, rollout_id, "stop")
    assert state_of(service, ask_id) == "aborted"
    assert all(asked(service, device).offer is None for device in devices)
    change_rollout(service, rollout_id, "roll-back")
    assert offered(service, devices[0]).takes_back


def test_rolling_back_a_completed_rollout_puts_the_one_before_in_force_again(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    for version in versions[1:]:
        rollout_id = running(service, version)
        for device in devices[:3]:
            told(service, device)
        tick(service)
    change_rollout(service, rollout_id, "roll-back")
    assert version_state(service, versions[1]) == "rolled_out"
    assert version_state(service, versions[2]) == "rolled_back"
    told(service, devices[0])
    assert asked(service, devices[0]).offer is None
    with pytest.raises(StateConflict, match="cannot be rolled out"):
        running(service, versions[2])


def test_late_report_of_the_version_that_was_rolled_back_reverts_nothing(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    rollout_id = running(service, versions[1])
    ask_id, bad = taken(service, devices[0])
    change_rollout(service, rollout_id, "roll-back")
    with pytest.raises(StateConflict):
        start(service, devices[0], ask_id, 1)
    assert offered(service, devices[0]).takes_back
    with pytest.raises(DigestMismatch):
        submit(service, devices[0], ask_id, report_of(bad))
    assert state_of(service, ask_id) == "recalled"


def test_device_that_cannot_take_the_version_back_may_do_other_work_meanwhile(
    service: Service, versions: list[str], devices: list[str], clock: FakeClock
) -> None:
    rollout_id = running(service, versions[1], lease_seconds=600)
    told(service, devices[0])
    change_rollout(service, rollout_id, "roll-back")
    fail(service, devices[0], offered(service, devices[0]).assignment_id, FAILURE)
    assert asked(service, devices[0]).offer is None
    clock.advance(600)
    assert offered(service, devices[0]).takes_back


def test_device_whose_conditions_were_lost_is_asked_again(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    running(service, versions[1])
    ask_id, _ = taken(service, devices[0])
    fail(service, devices[0], ask_id, Failure(code="conditions_unmet", message="not now"))
    assert offered(service, devices[0]).assignment_id == ask_id


def test_report_that_comes_twice_counts_once(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    rollout_id = running(service, versions[1])
    ask_id, adapter = taken(service, devices[0])
    receipts = [submit(service, devices[0], ask_id, report_of(adapter)) for _ in range(2)]
    assert receipts[0].state == receipts[1].state == AssignmentState.ACCEPTED
    assert status(service, rollout_id).counts.adopted == 1


def test_client_that_does_not_know_of_rollouts_is_not_asked(
    service: Service, versions: list[str], devices: list[str]
) -> None:
    running(service, versions[1])
    silent = CHECK_IN.model_copy(update={"example_count": 0})
    assert check_in(service, devices[0], silent).offer is None


def test_device_finishes_its_training_first(
    service: Service, versions: list[str], devices: list[str], bundle: str
) -> None:
    started_run(service, bundle)
    assignment_id = take_offer(service, devices[0])
    running(service, versions[1])
    answer = asked(service, devices[0], example_count=1)
    assert answer.offer is not None
    assert (answer.offer.kind, answer.offer.assignment_id) == ("train", assignment_id)


def test_one_rollout_of_a_population_is_under_way_at_a_time(service: Service, versions: list[str]) -> None:
    running(service, versions[1])
    with pytest.raises(StateConflict, match="another rollout"):
        running(service, versions[2])


def test_rollout_needs_a_version_and_one_before_it(service: Service, versions: list[str]) -> None:
    def make(**fields: object) -> str:
        settings = {"stages": [{"share": 1, "least_reports": 1}]}
        return create_rollout(service, RolloutCreate.model_validate({"settings": settings, **fields}))

    with pytest.raises(NotFound, match="no such adapter version"):
        make(version="nothing")
    with pytest.raises(NotFound, match="no such group"):
        make(version=versions[1], group="nothing")
    with pytest.raises(SettingsError, match="none before it"):
        make(version=versions[0])
    with pytest.raises(SettingsError, match="former is the version itself"):
        make(version=versions[1], former=versions[1])


def test_stranger_learns_nothing_of_an_ask(service: Service, versions: list[str], devices: list[str]) -> None:
    running(service, versions[1])
    ask_id, adapter = taken(service, devices[0])
    with pytest.raises(NotFound):
        submit(service, devices[1], ask_id, report_of(adapter))
    with pytest.raises(RankOutOfRange):
        start(service, devices[0], ask_id, 3)


@given(st.text("0123456789abcdef-", min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_smaller_share_lies_within_a_larger_one(device_id: str, left: float, right: float) -> None:
    small, large = sorted((left, right))
    assert is_in_share("rollout", device_id, small) <= is_in_share("rollout", device_id, large)
    assert is_in_share("rollout", device_id, 1.0)
    assert not is_in_share("rollout", device_id, 0.0)


def test_version_that_was_rolled_back_itself_is_never_the_way_back(service: Service, bundle: str) -> None:
    versions = made_versions(service, bundle, 3)
    devices = [add_device(service, f"device-{number}") for number in range(3)]
    made = []
    for version in versions[1:3]:
        made.append(running(service, version))
        for device in devices:
            told(service, device)
        tick(service)
    late = add_device(service, "late")
    made.append(running(service, versions[3]))
    told(service, late)
    assert status(service, made[2]).former == versions[2]
    change_rollout(service, made[1], "roll-back")
    change_rollout(service, made[2], "roll-back")
    assert status(service, made[2]).former == versions[1]
    plan = start(service, late, offered(service, late).assignment_id, 1)
    assert (
        plan.adapter.sha256
        == start(service, devices[0], offered(service, devices[0]).assignment_id, 1).adapter.sha256
    )


def test_rollout_whose_way_back_was_rolled_back_does_not_start(service: Service, bundle: str) -> None:
    versions = made_versions(service, bundle, 3)
    device = add_device(service, "device-1")
    bad = running(service, versions[1], stages=[{"share": 1.0, "least_reports": 1}])
    told(service, device)
    tick(service)
    change_rollout(service, bad, "roll-back")
    message = {"version": versions[2], "former": versions[1], "settings": ONE_STAGE}
    draft = create_rollout(service, RolloutCreate.model_validate(message))
    with pytest.raises(StateConflict, match="was rolled back itself"):
        change_rollout(service, draft, "start")


def test_word_of_a_device_that_was_sent_away_counts_no_more(service: Service, bundle: str) -> None:
    versions = made_versions(service, bundle, 2)
    devices = [add_device(service, f"device-{number}") for number in range(4)]
    rollout = running(service, versions[1])
    for device in devices[:2]:
        told(service, device)
    hostile = offered(service, devices[3]).assignment_id
    fail(service, devices[3], hostile, Failure(code="device_too_small", message=""))
    decide(service, devices[3], DeviceDecision(state=DeviceState.DECOMMISSIONED, reason="hostile"))
    tick(service)
    assert status(service, rollout).state is RolloutState.RUNNING
    told(service, devices[2])
    tick(service)
    assert status(service, rollout).state is RolloutState.COMPLETED


def test_device_cannot_start_on_an_offer_while_it_is_taken_back(
    service: Service, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if service.settings.database_url is None:
        pytest.skip("writes of SQLite follow one another")
    versions = made_versions(service, bundle, 2)
    device = add_device(service, "device-1")
    rollout = running(service, versions[1])
    offer = offered(service, device)
    real, plans = rollouts.move, []

    def begin() -> None:
        with suppress(StateConflict):
            plans.append(start(service, device, offer.assignment_id, 1))

    thread = Thread(target=begin)

    def move(session: Session, row: StatefulRow, *rest: Any) -> None:
        if isinstance(row, RolloutDeviceRow):
            thread.start()
            thread.join(1)  # it waits for the row, which is locked by now
        real(session, row, *rest)

    monkeypatch.setattr(rollouts, "move", move)
    change_rollout(service, rollout, "roll-back")
    thread.join()
    assert (plans, state_of(service, offer.assignment_id)) == ([], "aborted")
