"""SIGKILL of a real service process, at several instants of a round."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_process import now, process
from service_verbs import add_device, deliver, started_run
from sqlalchemy import select

from aggregator_service.rounds.runs import change_run
from aggregator_service.service import TOKEN_FILE, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AdapterVersionRow, RoundRow, RunRow
from aggregator_service.worker.commit import commit_round
from aggregator_service.worker.worker import tick
from hetlora.states import RoundState, RunState
from hetlora.tensors import adapter_to_bytes


@pytest.mark.slow
def test_killed_service_goes_on_with_its_round_and_loses_nothing_accepted(tmp_path: Path) -> None:
    with process(tmp_path) as (running, http):
        token = (tmp_path / TOKEN_FILE).read_text().strip()
        operator = Operator(http, token)
        enrolment_token, bundle = operator.population(), operator.publish()
        run_id = operator.run(bundle, goal_count=2)
        done, working = (FakeDevice(http, now, seed).enrol(enrolment_token) for seed in (1, 2))
        receipt = done.deliver(make_adapter(1), rank=2)
        assignment_id = working.started()
        working.upload(assignment_id, make_adapter(2))
        running.kill()
        running.wait()
    with process(tmp_path) as (restarted, http):
        operator = Operator(http, token)
        done.http = working.http = http
        # Nobody needs to start again: the receipt, the offer and the upload are as they were.
        (accepted,) = (
            item for item in operator.items(f"/runs/{run_id}/assignments") if item["state"] == "accepted"
        )
        again = done.submit(accepted["assignment_id"], make_adapter(1)).json()
        # When to come back depends on the time of asking.
        assert again | {"retry_after_seconds": 0} == receipt | {"retry_after_seconds": 0}
        assert working.offer()["assignment_id"] == assignment_id
        assert working.submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"
        restarted.kill()  # the goal is met: before, in or after the commit
        restarted.wait()
    with process(tmp_path) as (_, http):
        operator = Operator(http, token)
        run = operator.committed(run_id)
        assert run["state"] == "completed"
        assert len(operator.items(f"/runs/{run_id}/adapters")) == 2
        weights = [item["aggregation_weight"] for item in operator.items(f"/runs/{run_id}/assignments")]
        assert sorted(round(weight, 3) for weight in weights) == [0.333, 0.667]


@pytest.mark.slow
def test_stopped_service_leaves_a_closed_database(tmp_path: Path) -> None:
    with process(tmp_path) as (running, http):
        assert list(tmp_path.glob("*.sqlite-wal"))
        http.close()
        running.terminate()
        assert running.wait(timeout=20) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("*.sqlite-wal")) == []


def test_round_left_aggregating_is_committed_by_the_next_process(
    settings: Settings, bundle: str, clock: FakeClock
) -> None:
    # No worker runs here, so the round stays where a process that died before its commit would leave it.
    dead = open_service(settings, clock)
    run_id = started_run(dead, bundle)
    update = make_adapter(2)
    deliver(dead, add_device(dead), update)
    dead.objects.put(adapter_to_bytes(update))  # written before the transaction that never came
    dead.close()

    service = open_service(settings, clock)
    for _ in range(2):  # the second finds nothing to do
        tick(service)
        with service.database.read() as session:
            run = session.get_one(RunRow, run_id)
            assert (run.state, run.rounds_committed) == (RunState.COMPLETED, 1)
            assert [row.state for row in session.scalars(select(RoundRow))] == [RoundState.COMMITTED]
            assert len(session.scalars(select(AdapterVersionRow)).all()) == 2
    service.close()


def test_result_of_a_run_that_was_stopped_while_aggregating_is_dropped(
    settings: Settings, bundle: str, clock: FakeClock
) -> None:
    service = open_service(settings, clock)
    run_id = started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    with service.database.read() as session:
        (row,) = session.scalars(select(RoundRow))
    change_run(service, run_id, "stop")
    commit_round(service, row.id)
    with service.database.read() as session:
        assert session.get_one(RunRow, run_id).state is RunState.STOPPED
        assert session.get_one(RoundRow, row.id).state is RoundState.ABANDONED
        assert len(session.scalars(select(AdapterVersionRow)).all()) == 1
    service.close()
