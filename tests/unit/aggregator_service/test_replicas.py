"""Several processes of one service: they share a database and a store, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_process import now, process
from service_verbs import add_device, deliver, started_run
from sqlalchemy import select

from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AdapterVersionRow, RoundRow
from aggregator_service.worker.claims import claim, free_abandoned, held
from aggregator_service.worker.commit import commit_round
from aggregator_service.worker.worker import tick
from hetlora.states import RoundState


@pytest.fixture
def other(settings: Settings, service: Service, clock: FakeClock) -> Iterator[Service]:
    """A second service on the database and the store of the first."""
    with closing(open_service(settings, clock)) as opened:
        yield opened


@pytest.fixture
def waiting(service: Service, bundle: str) -> str:
    """A round that waits to be aggregated, as no worker runs."""
    started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    with service.database.read() as session:
        return session.scalars(select(RoundRow.id)).one()


def state_of(service: Service, round_id: str) -> RoundState:
    with service.database.read() as session:
        return session.get_one(RoundRow, round_id).state


def test_round_that_one_worker_holds_is_left_alone_by_the_others(
    service: Service, other: Service, waiting: str
) -> None:
    assert claim(service, set()) == waiting
    with held(service, waiting):
        tick(other)
        assert state_of(other, waiting) is RoundState.AGGREGATING
    tick(other)  # the claim was given up at the end of the block
    assert state_of(other, waiting) is RoundState.COMMITTED


def test_round_of_a_worker_that_died_is_taken_up_after_a_while(
    service: Service, other: Service, waiting: str, clock: FakeClock
) -> None:
    assert claim(service, set()) == waiting
    clock.advance(service.settings.claim_seconds - 1)
    assert claim(other, set()) is None
    clock.advance(1)
    assert claim(other, set()) == waiting
    assert claim(service, set()) is None


def test_claims_of_a_process_that_is_gone_are_given_up_at_once_on_its_machine(
    service: Service, other: Service, waiting: str
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = service.name.rsplit("-", 2)[0]
    for name, free in (
        (f"{here}-{gone.pid}-0", True),
        (f"{here}-{os.getppid()}-0", False),
        (f"another-machine-{gone.pid}-0", False),
    ):
        holder = replace(service, name=name)
        with service.database.write() as session:
            session.get_one(RoundRow, waiting).claimed_until = None
        assert claim(holder, set()) == waiting
        free_abandoned(other)
        assert (claim(other, set()) == waiting) is free


def test_claim_of_a_worker_whose_clock_ran_ahead_is_not_believed(
    settings: Settings, service: Service, waiting: str, clock: FakeClock
) -> None:
    ahead = FakeClock(clock.now + timedelta(hours=1))
    with closing(open_service(settings, ahead)) as wrong:
        assert claim(wrong, set()) == waiting  # and it dies
    assert claim(service, set()) == waiting


def test_claim_of_a_worker_whose_clock_is_a_little_ahead_is_believed(
    settings: Settings, service: Service, waiting: str, clock: FakeClock
) -> None:
    ahead = FakeClock(clock.now + timedelta(seconds=service.settings.claim_seconds - 1))
    with closing(open_service(settings, ahead)) as other:
        assert claim(other, set()) == waiting
    assert claim(service, set()) is None


def test_two_workers_that_aggregate_one_round_come_to_the_same_and_commit_it_once(
    service: Service, other: Service, waiting: str
) -> None:
    versions = select(AdapterVersionRow.sha256).order_by(AdapterVersionRow.id)
    made = []
    for own in (service, other):
        commit_round(own, waiting)
        with own.database.read() as session:
            made.append(session.scalars(versions).all())
    assert made[0] == made[1]
    assert len(made[1]) == 2  # the initial one, and that of the round


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_rounds_go_on_over_two_replicas_of_which_one_is_killed(
    settings: Settings, bundle: str, enrolment_token: str, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    if settings.database_url is not None:
        monkeypatch.setenv("HETLORA_DATABASE_URL", settings.database_url.get_secret_value())
    assert settings.operator_token is not None
    monkeypatch.setenv("HETLORA_OPERATOR_TOKEN", settings.operator_token.get_secret_value())
    monkeypatch.setenv("HETLORA_CLAIM_SECONDS", "1")
    with ExitStack() as running:
        replicas = [running.enter_context(process(settings.data_dir)) for _ in range(2)]
        clients = [http for _, http in replicas]
        operator = Operator(clients[0])
        run_id = operator.run(bundle, rounds=2, goal_count=2)
        devices = [FakeDevice(clients[0], now, seed).enrol(enrolment_token) for seed in (1, 2)]
        # Each request of a device goes to the other replica than the one before.
        assignment_id = devices[0].started()
        devices[0].http = clients[1]
        assert devices[0].upload(assignment_id, make_adapter(2)).is_success
        devices[0].http = clients[0]
        assert devices[0].submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"
        replicas[killed][0].kill()
        replicas[killed][0].wait()
        operator.http = devices[0].http = devices[1].http = clients[1 - killed]
        assert devices[1].deliver(make_adapter(1), rank=1)["state"] == "accepted"
        operator.committed(run_id)
        for device in devices:
            device.deliver(make_adapter(1), rank=1)
        assert operator.committed(run_id, 2)["state"] == "completed"
        rows = operator.items(f"/runs/{run_id}/rounds")
        assert [(row["round_index"], row["attempt"], row["state"]) for row in rows] == [
            (0, 0, "committed"),
            (1, 0, "committed"),
        ]
