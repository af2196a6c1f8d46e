"""Buffered rounds in several processes that die: the same updates make the same versions all the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from fake_clock import FakeClock
from service_bundle import random_adapter
from service_verbs import add_device, asked, deliver, hand_in, started_run, take_offer
from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.assignments.assignments import fail
from aggregator_service.rounds.rounds import cohort_size, most_updates
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow
from aggregator_service.worker.claims import claim
from aggregator_service.worker.commit import commit_round
from aggregator_service.worker.worker import tick
from hetlora.errors import StateConflict
from hetlora.messages.device import Failure
from hetlora.messages.management import RunSettings
from hetlora.states import LIVE_ASSIGNMENT, OPEN_ROUND, AssignmentState, RoundState, RunState

BUFFERED = {
    "mode": "buffered",
    "rule": {"name": "residual_exact"},
    "rounds": 6,
    "goal_count": 2,
    "over_selection": 2.0,
    "max_staleness": 3,
    "lease_seconds": 60,
    "report_window_seconds": 90,
    "seed": 5,
}
CopyOf = Callable[[Settings], AbstractContextManager[Settings]]
DEVICES = [f"device-{number}" for number in range(7)]


@pytest.fixture
def other(settings: Settings, service: Service, clock: FakeClock) -> Iterator[Service]:
    """A second service on the database and the store of the first."""
    with closing(open_service(settings, clock)) as opened:
        yield opened


def contents(service: Service) -> list[str]:
    """The digests of all versions, in order."""
    with service.database.read() as session:
        return [
            row.sha256 for row in session.scalars(select(AdapterVersionRow).order_by(AdapterVersionRow.id))
        ]


def play(service: Service, order: tuple[int, ...], turns: tuple[Service, ...]) -> list[str]:
    """Two rounds of three updates, the second of devices that were sent one of two versions."""
    one, two, three, four, *_ = DEVICES
    late = take_offer(service, one)
    deliver(service, two, random_adapter(2, seed=10))
    deliver(service, three, random_adapter(2, seed=11))
    deliver(service, four, random_adapter(2, seed=12))
    tick(turns[0])
    taken = {one: late, two: take_offer(service, two, 1), three: take_offer(service, three)}
    for number in order:
        device = (one, two, three)[number]
        hand_in(service, device, taken[device], random_adapter(1 if device == two else 2, seed=20 + number))
    for turn in turns:
        tick(turn)
    return contents(service)


def test_versions_are_the_same_bytes_in_any_order_of_arrival_on_any_replica(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        started_run(service, bundle, **(BUFFERED | {"goal_count": 3}))
        for device in DEVICES:
            add_device(service, device)
    made = set()
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        with (
            copy_of(settings) as own,
            closing(open_service(own, clock)) as one,
            closing(open_service(own, clock)) as two,
        ):
            made.add(tuple(play(one, order, (two, one) if order[0] else (one, two))))
    assert len(made) == 1
    assert len(next(iter(made))) == 3


def test_worker_that_hangs_and_wakes_after_another_committed_changes_nothing(
    service: Service, other: Service, bundle: str, clock: FakeClock
) -> None:
    started_run(service, bundle, **(BUFFERED | {"lease_seconds": 3600, "report_window_seconds": 3600}))
    for device in DEVICES:
        add_device(service, device)
    for number in range(4):  # two rounds: the second waits for the first
        deliver(service, DEVICES[number], random_adapter(2, seed=number))
    hung = claim(service, set())
    assert hung is not None
    assert claim(other, set()) is None
    clock.advance(service.settings.claim_seconds)
    tick(other)
    after = contents(other)
    assert len(after) == 3
    commit_round(service, hung)
    tick(service)
    assert contents(service) == after


@dataclass
class Walk:
    """Devices and workers that do what a seed says, some of them dying; the rules hold after each step."""

    settings: Settings
    clock: FakeClock
    rng: random.Random
    service: Service
    other: Service
    run_id: str
    work: dict[str, str] = field(default_factory=dict)

    def step(self) -> None:
        device = self.rng.choice(DEVICES)
        service = self.rng.choice([self.service, self.other])
        doing = self.rng.random()
        if device not in self.work:
            if asked(service, device).offer is not None:
                self.work[device] = take_offer(service, device)
        elif doing < 0.6:
            self.hand_in(service, device)
        elif doing < 0.7:
            fail(service, device, self.work.pop(device), Failure(code="late", message=""))
        if self.rng.random() < 0.3:
            tick(service)
        if self.rng.random() < 0.1:
            self.clock.advance(self.rng.choice([5, 40, 70]))
        if self.rng.random() < 0.1:
            service.close()
            born = open_service(self.settings, self.clock)
            if service is self.service:
                self.service = born
            else:
                self.other = born

    def hand_in(self, service: Service, device: str) -> None:
        assignment_id = self.work.pop(device)
        try:
            hand_in(service, device, assignment_id, random_adapter(2, self.rng.randrange(10**6)))
        except StateConflict:  # it ended meanwhile
            with service.database.read() as session:
                own = session.get_one(AssignmentRow, assignment_id)
            assert own.state not in LIVE_ASSIGNMENT or own.lease_expires_at <= self.clock()

    def check(self) -> bool:
        """Whether the run goes on; raises AssertionError where a rule is broken."""
        with self.service.database.read() as session:
            run = session.get_one(RunRow, self.run_id)
            rounds = session.scalars(select(RoundRow).order_by(RoundRow.id)).all()
            check_rounds(session, run, rounds)
            return run.state is RunState.RUNNING


def check_rounds(session: Session, run: RunRow, rounds: list[RoundRow]) -> None:
    versions = {row.id: row for row in session.scalars(select(AdapterVersionRow))}
    numbers = {name: number for number, name in enumerate(sorted(versions))}
    of_state = {state: [row for row in rounds if row.state is state] for state in RoundState}
    opened = [row for row in rounds if row.state in OPEN_ROUND]
    committed = of_state[RoundState.COMMITTED]
    assert len(opened) <= 1
    assert len(of_state[RoundState.AGGREGATING]) <= 1
    assert all(row.base_version == run.adapter_version for row in opened)
    assert len(committed) == run.rounds_committed == len(versions) - 1
    # Each was aggregated on what the last one made.
    assert [numbers[row.base_version] for row in committed] == list(range(len(committed)))
    assert all(left.round_index < right.round_index for left, right in pairwise(rounds))
    for row in rounds:
        check_assignments(session, run.settings, row, numbers)


def check_assignments(
    session: Session, settings: RunSettings, row: RoundRow, numbers: dict[str, int]
) -> None:
    own = session.scalars(select(AssignmentRow).where(AssignmentRow.round_id == row.id)).all()
    live = [one for one in own if one.state in LIVE_ASSIGNMENT]
    accepted = [one for one in own if one.state is AssignmentState.ACCEPTED]
    assert len(live) <= cohort_size(settings)
    assert len({one.device_id for one in accepted}) == len(accepted) <= most_updates(settings)
    if row.state in (RoundState.COMMITTED, RoundState.ABANDONED):
        assert not live
    if row.state is not RoundState.COMMITTED:
        return
    assert sum(one.aggregation_weight or 0 for one in accepted) == pytest.approx(1)
    for one in accepted:
        assert one.staleness == numbers[row.base_version] - numbers[one.base_version]
        assert 0 <= one.staleness <= settings.max_staleness


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_rules_of_buffered_rounds_hold_whatever_devices_and_workers_do(
    settings: Settings, bundle: str, clock: FakeClock, seed: int
) -> None:
    first, second = (open_service(settings, clock) for _ in range(2))
    run_id = started_run(first, bundle, **BUFFERED)
    for device in DEVICES:
        add_device(first, device)
    walk = Walk(settings, clock, random.Random(seed), first, second, run_id)
    try:
        for _ in range(400):
            walk.step()
            if not walk.check():
                break
        assert not walk.check()  # all rounds came through
    finally:
        walk.service.close()
        walk.other.close()
