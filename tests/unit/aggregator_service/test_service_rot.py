"""Files of the service that rot or go missing on its disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_objects import kept_updates
from service_operator import Operator
from service_server import problem
from service_verbs import add_device, deliver, hand_in, started_run, take_offer
from sqlalchemy import select
from waiting import wait_until

from aggregator_service.artifacts.objects import touch
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.digest import sha256_of
from hetlora.states import RoundState
from hetlora.tensors import adapter_to_bytes


def test_rotten_objects_of_the_service_are_told_as_its_own_fault(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    run_id = operator.run(bundle)
    (version,) = operator.items(f"/runs/{run_id}/adapters")
    manifest, adapter = service.objects.path(bundle), service.objects.path(version["sha256"])
    path = f"/assignments/{device.offer()['assignment_id']}"
    for rotten in (manifest, adapter):
        whole = rotten.read_bytes()
        flip_a_byte(rotten)
        assert problem(device.send("POST", f"{path}:start", {"rank": 1})) == (500, "service_failed")
        rotten.write_bytes(whole)
    plan = device.call("POST", f"{path}:start", {"rank": 1})
    manifest.rename(manifest.with_suffix(".aside"))
    update = make_adapter(1)
    assert problem(device.upload(plan["assignment_id"], update)) == (500, "service_failed")
    manifest.with_suffix(".aside").rename(manifest)
    assert device.upload(plan["assignment_id"], update).is_success


def test_adapter_that_was_made_for_a_rank_and_is_lost_is_made_again(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str, service: Service
) -> None:
    operator.run(bundle, goal_count=2)
    device, other = make_device(1), make_device(2)
    path = f"/assignments/{device.offer()['assignment_id']}:start"
    lost = device.call("POST", path, {"rank": 1})["adapter"]
    service.objects.remove(lost["sha256"])
    plan = other.call("POST", f"/assignments/{other.offer()['assignment_id']}:start", {"rank": 1})
    assert plan["adapter"] == lost
    assert device.send("GET", f"/objects/{lost['sha256']}").is_success


def test_adapter_and_manifest_that_were_cut_short_are_not_served(
    operator: Operator, bundle: str, service: Service
) -> None:
    (version,) = operator.items(f"/runs/{operator.run(bundle)}/adapters")
    for sha256, path in (
        (version["sha256"], f"/adapters/{version['version']}/content"),
        (bundle, f"/bundles/{bundle}/manifest"),
    ):
        file = service.objects.path(sha256)
        file.write_bytes(file.read_bytes()[:100])
        assert problem(operator.send("GET", path)) == (500, "service_failed")


def test_kept_update_that_rots_on_disk_is_left_out_where_the_others_are_enough(
    operator: Operator,
    make_device: Callable[[int], FakeDevice],
    bundle: str,
    service: Service,
    clock: FakeClock,
) -> None:
    # ceil(0.5 * 2) = 1 update is enough
    run_id = operator.run(bundle, goal_count=2, minimum_share=0.5)
    make_device(1).deliver(make_adapter(1), rank=1)
    (kept,) = kept_updates(service)
    flip_a_byte(kept)
    make_device(2).deliver(make_adapter(2))
    wait_until(partial(is_looked_for, service))
    clock.advance(60)
    run = operator.committed(run_id)
    content = operator.send("GET", f"/adapters/{run['adapter_version']}/content").content
    assert content == adapter_to_bytes(make_adapter(2))
    assert states_and_reasons(operator, run_id) == [
        ("accepted", "the update is in the round"),
        ("discarded", "the stored update cannot be read"),
    ]


def test_place_of_a_kept_update_that_rots_on_disk_is_given_again_and_the_others_stay(
    operator: Operator,
    make_device: Callable[[int], FakeDevice],
    bundle: str,
    service: Service,
    clock: FakeClock,
) -> None:
    run_id = operator.run(bundle, goal_count=2, minimum_share=1.0, report_window_seconds=100)
    unlucky, lucky = make_device(1), make_device(2)
    unlucky.deliver(make_adapter(1), rank=1)
    (kept,) = kept_updates(service)
    flip_a_byte(kept)
    clock.advance(90)
    lucky.deliver(make_adapter(2))
    wait_until(partial(is_looked_for, service))
    clock.advance(60)
    rounds = f"/runs/{run_id}/rounds"
    operator.wait_for(rounds, lambda page: page["items"][0]["state"] == "collecting")
    clock.advance(90)  # past the first window, which the lost update used up
    unlucky.deliver(make_adapter(1), rank=1)
    assert operator.committed(run_id)["state"] == "completed"
    (row,) = operator.items(rounds)  # the first attempt: nothing that was accepted was thrown away
    assert (row["attempt"], row["state"], row["accepted"]) == (0, "committed", 2)
    assert [state for state, _ in states_and_reasons(operator, run_id)] == [
        "accepted",
        "accepted",
        "discarded",
    ]


def test_update_that_is_away_for_less_than_a_minute_is_waited_for(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    run_id = started_run(service, bundle, goal_count=2, minimum_share=0.5)
    deliver(service, add_device(service, "device-1"), make_adapter(1))
    (kept,) = kept_updates(service)
    aside = kept.rename(kept.with_suffix(".aside"))
    deliver(service, add_device(service, "device-2"), make_adapter(2))
    clock.advance(3600)  # of a round that waits for a worker
    for _ in range(2):
        tick(service)
        clock.advance(29)
    tick(service)
    aside.rename(kept)
    clock.advance(2)
    tick(service)
    with service.database.read() as session:
        (version,) = session.scalars(
            select(AdapterVersionRow).where(
                AdapterVersionRow.run_id == run_id, AdapterVersionRow.update_count > 0
            )
        )
        assert version.update_count == 2


def test_manifest_that_is_lost_keeps_no_other_thing_from_being_swept(
    service: Service, bundle: str, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    service.objects.put(b"orphan")
    touch(service, [sha256_of(b"orphan")])
    left_over = service.store.incoming / "of-a-process-that-died"
    left_over.touch()
    os.utime(left_over, (0, 0))
    service.objects.remove(bundle)
    clock.advance(service.settings.keep_orphans_seconds + 1)
    sweep(service)
    assert not left_over.exists()
    assert any(record.getMessage().startswith("sweep=failed step=drop_orphans") for record in caplog.records)


def is_looked_for(service: Service) -> bool:
    """Whether some round has an update that could not be read."""
    looked_for = select(RoundRow.id).where(RoundRow.unreadable_since.is_not(None))
    with service.database.read() as session:
        return session.scalar(looked_for) is not None


def test_adapter_that_was_sent_and_is_lost_is_made_again_for_the_round_that_it_counts_in(
    service: Service, bundle: str
) -> None:
    started_run(service, bundle)
    device = add_device(service)
    assignment_id = take_offer(service, device, 1)
    with service.database.read() as session:
        sent = str(session.get_one(AssignmentRow, assignment_id).adapter_sha256)
    hand_in(service, device, assignment_id, make_adapter(1))
    service.objects.remove(sent)
    tick(service)
    with service.database.read() as session:
        assert session.scalars(select(RoundRow.state)).all() == [RoundState.COMMITTED]


def states_and_reasons(operator: Operator, run_id: str) -> list[tuple[str, str]]:
    """In the order of the alphabet: ids made at one moment have none."""
    return sorted((item["state"], item["reason"]) for item in operator.items(f"/runs/{run_id}/assignments"))


def test_commit_that_fails_for_another_reason_waits_for_its_cure(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.started()
    device.upload(assignment_id, make_adapter(2))
    manifest = service.objects.path(bundle)
    aside = manifest.rename(manifest.with_suffix(".aside"))
    assert device.submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"
    for _ in range(2):
        tick(service)
        assert [row["state"] for row in operator.items(f"/runs/{run_id}/rounds")] == ["aggregating"]
    aside.rename(manifest)
    assert operator.committed(run_id)["state"] == "completed"


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
