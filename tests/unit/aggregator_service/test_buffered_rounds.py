"""Rounds of a buffered run: who counts in which, and how much."""

from __future__ import annotations

import numpy as np
import pytest
from fake_clock import FakeClock
from service_bundle import SPEC, random_adapter
from service_objects import kept_updates
from service_verbs import add_device, asked, deliver, hand_in, started_run, take_offer
from sqlalchemy import select

from aggregator_service.assignments.assignments import submit
from aggregator_service.assignments.updates import terms_of
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.adapter import Adapter
from hetlora.errors import StateConflict
from hetlora.states import AssignmentState, RoundState, RunState
from hetlora.tensors import adapter_from_bytes

# FedBuff of plain LoRA: the mean change of the factors.
PLAIN = {"name": "flasc", "download_density": 1.0, "upload_density": 1.0}
BUFFERED = {"mode": "buffered", "rule": PLAIN, "rounds": 10}


@pytest.fixture
def devices(service: Service) -> list[str]:
    return [add_device(service, f"device-{number}") for number in range(6)]


def rounds_of(service: Service) -> list[tuple[int, RoundState]]:
    with service.database.read() as session:
        rows = session.scalars(select(RoundRow).order_by(RoundRow.id))
        return [(row.round_index, row.state) for row in rows]


def assignment(service: Service, assignment_id: str) -> AssignmentRow:
    with service.database.read() as session:
        return session.get_one(AssignmentRow, assignment_id)


def versions(service: Service) -> list[AdapterVersionRow]:
    with service.database.read() as session:
        return list(session.scalars(select(AdapterVersionRow).order_by(AdapterVersionRow.id)))


def values(service: Service, version: AdapterVersionRow) -> np.ndarray:
    return flat(adapter_from_bytes(service.objects.read(version.sha256), SPEC))


def flat(adapter: Adapter) -> np.ndarray:
    factors = [own for _, pair in adapter for own in (pair.lora_A, pair.lora_B)]
    return np.concatenate([own.ravel() for own in factors]).astype(np.float64)


def test_update_of_an_older_version_counts_by_its_change_and_less(
    service: Service, bundle: str, devices: list[str]
) -> None:
    started_run(service, bundle, goal_count=2, over_selection=2.0, **BUFFERED)
    quick, other, slow = devices[:3]
    late = take_offer(service, slow)
    updates = [random_adapter(2, seed=seed) for seed in range(4)]
    deliver(service, quick, updates[0])
    deliver(service, other, updates[1])
    tick(service)
    fresh = take_offer(service, quick)
    hand_in(service, quick, fresh, updates[2])
    assert hand_in(service, slow, late, updates[3]).state is AssignmentState.ACCEPTED
    tick(service)

    before, first, second = versions(service)
    x = values(service, before)
    y = x + 0.5 * (flat(updates[0]) - x) + 0.5 * (flat(updates[1]) - x)
    np.testing.assert_allclose(values(service, first), y, rtol=1e-6, atol=1e-6)
    # Weights 1 and 1 / sqrt(2), over their sum: 0.5857864 and 0.4142136. The slow device was sent x, not y.
    z = y + 0.5857864376 * (flat(updates[2]) - y) + 0.4142135624 * (flat(updates[3]) - x)
    np.testing.assert_allclose(values(service, second), z, rtol=1e-6, atol=1e-6)
    stale, own = assignment(service, late), assignment(service, fresh)
    assert (stale.staleness, own.staleness) == (1, 0)
    assert (stale.base_version, own.base_version) == (before.id, first.id)
    assert stale.aggregation_weight == pytest.approx(0.4142135624)
    assert own.aggregation_weight == pytest.approx(0.5857864376)


def test_next_round_goes_on_while_the_last_is_aggregated_and_waits_for_it(
    service: Service, bundle: str, devices: list[str]
) -> None:
    started_run(service, bundle, goal_count=1, over_selection=2.0, **BUFFERED)
    first, second, third, fourth = devices[:4]
    deliver(service, first, random_adapter(2, seed=1))
    held = take_offer(service, third)
    deliver(service, second, random_adapter(2, seed=2))  # no worker has run: this one meets the next goal
    assert rounds_of(service) == [(0, RoundState.AGGREGATING), (1, RoundState.COLLECTING)]
    refused = asked(service, fourth)
    assert (refused.offer, refused.reason) == (None, "the buffer is full, and waits for the round before it")
    hand_in(service, third, held, random_adapter(2, seed=3))  # who is at work is waited for no less
    tick(service)
    assert rounds_of(service) == [
        (0, RoundState.COMMITTED),
        (1, RoundState.COMMITTED),
        (2, RoundState.COLLECTING),
    ]
    assert [row.update_count for row in versions(service)] == [0, 1, 2]
    # Sent the initial adapter both times, and the second round stands on what the first made.
    with service.database.read() as session:
        own = session.scalars(select(AssignmentRow).order_by(AssignmentRow.device_id)).all()
    assert [(row.base_version, row.staleness) for row in own] == [
        (versions(service)[0].id, 0),
        (versions(service)[0].id, 1),
        (versions(service)[0].id, 1),
    ]


def test_device_that_was_left_too_far_behind_is_told_before_it_uploads(
    service: Service, bundle: str, devices: list[str]
) -> None:
    started_run(service, bundle, goal_count=1, over_selection=3.0, max_staleness=2, **BUFFERED)
    slow, quick = devices[:2]
    late = take_offer(service, slow)
    for number in range(3):
        assert assignment(service, late).state is AssignmentState.DOWNLOADING
        deliver(service, quick, random_adapter(2, seed=number))
        tick(service)
    # In the round after three it would be 3 rounds old.
    ended = assignment(service, late)
    assert (ended.state, ended.reason) == (
        AssignmentState.ABORTED,
        "its adapter is more than 2 rounds old",
    )
    with pytest.raises(StateConflict, match="more than 2 rounds old"):
        terms_of(service, slow, late, "")
    assert take_offer(service, slow) != late


def test_places_of_a_buffered_run_are_of_those_who_are_at_work(
    service: Service, bundle: str, devices: list[str]
) -> None:
    # ceil(3 * 1.0) = 3 places; an accepted update takes none.
    started_run(service, bundle, goal_count=3, over_selection=1.0, **BUFFERED)
    held = [take_offer(service, device) for device in devices[:3]]
    assert asked(service, devices[3]).reason == "the cohort is complete"
    hand_in(service, devices[0], held[0], random_adapter(2, seed=0))
    assert asked(service, devices[0]).reason == "this device's update of the round is in"
    take_offer(service, devices[3])
    assert asked(service, devices[4]).reason == "the cohort is complete"


def test_repeated_requests_of_a_device_that_moved_on_are_answered_the_same(
    service: Service, bundle: str, devices: list[str]
) -> None:
    started_run(service, bundle, goal_count=1, over_selection=2.0, **BUFFERED)
    slow, quick = devices[:2]
    late = take_offer(service, slow)
    before = (asked(service, slow).offer, assignment(service, late).adapter_sha256)
    deliver(service, quick, random_adapter(2, seed=1))
    tick(service)
    assert take_offer(service, slow) == late
    assert (asked(service, slow).offer, assignment(service, late).adapter_sha256) == before


def test_window_of_a_buffered_round_flushes_enough_and_loses_nothing_of_too_little(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    # ceil(0.5 * 3) = 2 updates are enough at the end of a window.
    settings = {"goal_count": 3, "over_selection": 2.0, "minimum_share": 0.5, "report_window_seconds": 60}
    started_run(service, bundle, **settings, **BUFFERED)
    clock.advance(600)  # no update, no window
    tick(service)
    deliver(service, devices[0], random_adapter(2, seed=0))
    clock.advance(60)
    tick(service)
    assert rounds_of(service) == [(0, RoundState.COLLECTING)]
    deliver(service, devices[1], random_adapter(2, seed=1))
    tick(service)
    assert rounds_of(service) == [(0, RoundState.COLLECTING)]
    clock.advance(60)
    tick(service)
    assert rounds_of(service) == [(0, RoundState.COMMITTED), (1, RoundState.COLLECTING)]
    assert versions(service)[-1].update_count == 2


def test_last_step_of_a_run_opens_no_round_and_tells_who_is_still_at_work(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = started_run(service, bundle, goal_count=1, over_selection=3.0, **{**BUFFERED, "rounds": 2})
    late = take_offer(service, devices[2])
    deliver(service, devices[0], random_adapter(2, seed=0))
    tick(service)
    deliver(service, devices[1], random_adapter(2, seed=1))
    assert asked(service, devices[3]).reason == "the round is being aggregated"
    tick(service)
    assert rounds_of(service) == [(0, RoundState.COMMITTED), (1, RoundState.COMMITTED)]
    with service.database.read() as session:
        assert session.get_one(RunRow, run_id).state is RunState.COMPLETED
    assert assignment(service, late).reason == "goal already met"


def test_stopped_run_ends_the_round_that_is_aggregated_and_the_one_that_collects(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = started_run(service, bundle, goal_count=1, over_selection=2.0, **BUFFERED)
    late = take_offer(service, devices[1])
    deliver(service, devices[0], random_adapter(2, seed=0))
    change_run(service, run_id, "stop")
    tick(service)
    assert rounds_of(service) == [(0, RoundState.ABANDONED), (1, RoundState.ABANDONED)]
    assert assignment(service, late).reason == "run stopped"
    assert len(versions(service)) == 1


def test_updates_left_of_a_round_that_lost_some_move_on_to_the_next(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    started_run(service, bundle, goal_count=2, over_selection=2.0, minimum_share=1.0, **BUFFERED)
    kept, lost = take_offer(service, devices[0]), take_offer(service, devices[1])
    hand_in(service, devices[0], kept, random_adapter(2, seed=0))
    (whole,) = kept_updates(service)
    hand_in(service, devices[1], lost, random_adapter(2, seed=1))
    next(path for path in kept_updates(service) if path != whole).unlink()
    tick(service)
    clock.advance(60)
    tick(service)
    assert rounds_of(service) == [(0, RoundState.ABANDONED), (1, RoundState.COLLECTING)]
    assert assignment(service, lost).reason == "the stored update cannot be read"
    moved = assignment(service, kept)
    assert (moved.state, moved.round_id[-11:], moved.staleness) == (
        AssignmentState.ACCEPTED,
        "000001-0000",
        0,
    )
    deliver(service, devices[2], random_adapter(2, seed=2))
    tick(service)
    # Both were sent the initial adapter, on which the round is aggregated: the one before it was no step.
    assert assignment(service, kept).aggregation_weight == 0.5
    assert versions(service)[-1].update_count == 2


def test_round_that_cannot_be_aggregated_is_passed_over_and_a_run_of_them_is_paused(
    service: Service, bundle: str, devices: list[str]
) -> None:
    trusted, other = devices[:2]
    defence = {"method": "fltrust", "trusted_device": trusted}
    run_id = started_run(
        service, bundle, goal_count=1, over_selection=2.0, defence=defence, **(BUFFERED | {"rounds": 2})
    )
    late = take_offer(service, other)
    for _ in range(3):
        unchanged = service.objects.read(
            str(assignment(service, own := take_offer(service, trusted)).adapter_sha256)
        )
        hand_in(service, trusted, own, adapter_from_bytes(unchanged, SPEC))
        tick(service)
    assert rounds_of(service) == [(number, RoundState.ABANDONED) for number in range(3)] + [
        (3, RoundState.COLLECTING)
    ]
    with service.database.read() as session:
        run = session.get_one(RunRow, run_id)
        assert run.state is RunState.PAUSED
        assert run.reason.startswith("3 attempts at a round failed: the defence trusts no update")
    change_run(service, run_id, "resume")
    deliver(service, trusted, random_adapter(2, seed=1))
    hand_in(service, other, late, random_adapter(2, seed=2))
    tick(service)
    deliver(service, trusted, random_adapter(2, seed=3))
    tick(service)
    # What was abandoned was no step: the one who was at work all the time was sent the version before.
    assert assignment(service, late).staleness == 1
    assert [row.round_index for row in versions(service)] == [-1, 3, 4]


def test_trusted_device_of_which_a_round_comes_to_have_two_updates_is_trusted_by_one(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    trusted, other = devices[:2]
    defence = {"method": "fltrust", "trusted_device": trusted}
    started_run(
        service, bundle, goal_count=2, over_selection=2.0, minimum_share=1.0, defence=defence, **BUFFERED
    )
    deliver(service, trusted, random_adapter(2, seed=0))
    (whole,) = kept_updates(service)
    deliver(service, other, random_adapter(2, seed=1))
    next(path for path in kept_updates(service) if path != whole).unlink()
    deliver(service, trusted, random_adapter(2, seed=2))  # of the next round
    tick(service)
    clock.advance(60)
    tick(service)
    assert rounds_of(service) == [
        (0, RoundState.ABANDONED),
        (1, RoundState.COMMITTED),
        (2, RoundState.COLLECTING),
    ]
    with service.database.read() as session:
        own = session.scalars(select(AssignmentRow).where(AssignmentRow.device_id == trusted)).all()
    # The round that was abandoned is no step for the update that had reckoned with it.
    assert [row.staleness for row in own] == [0, 0]
    assert sum(row.aggregation_weight or 0 for row in own) == pytest.approx(1)


def test_updates_stay_as_long_as_a_round_needs_them(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    month = 30 * 24 * 3600.0
    settings = {"lease_seconds": month, "report_window_seconds": month}
    started_run(service, bundle, goal_count=2, over_selection=2.0, **settings, **BUFFERED)
    late = take_offer(service, devices[2])
    for number in range(2):
        deliver(service, devices[number], random_adapter(2, seed=number))
    tick(service)
    hand_in(service, devices[2], late, random_adapter(2, seed=2))
    clock.advance(service.settings.keep_updates_seconds)
    sweep(service)
    assert len(kept_updates(service)) == 3  # round 0 ended a week ago, but round 1 needs one of them
    deliver(service, devices[0], random_adapter(2, seed=3))
    tick(service)
    assert [row.update_count for row in versions(service)] == [0, 2, 2]
    clock.advance(service.settings.keep_updates_seconds - 1)
    sweep(service)
    assert len(kept_updates(service)) == 4
    clock.advance(1)
    sweep(service)
    assert kept_updates(service) == []


def test_late_submit_after_the_run_moved_on_answers_the_same_receipt(
    service: Service, bundle: str, devices: list[str]
) -> None:
    started_run(service, bundle, goal_count=1, over_selection=2.0, **BUFFERED)
    update = random_adapter(2, seed=1)
    own = take_offer(service, devices[0])
    first = hand_in(service, devices[0], own, update)
    tick(service)
    report = assignment(service, own).report
    assert report is not None
    again = submit(service, devices[0], own, report)
    assert (again.state, again.reason) == (first.state, first.reason)
