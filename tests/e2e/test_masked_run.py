"""Secure aggregation from end to end: five unequal devices, one of which is gone after it has shared."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from e2e_fleet import TinyFleet, assert_is_merge, capabilities, labelled_rows, wait_until

from benchmarks.fleet import POPULATION
from edge_sdk import Adapters, EdgeClient
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.assignment_store import AssignmentStore
from hetlora.adapter import Adapter
from hetlora.masking.vector import size_of
from hetlora.masking.wire import max_masked_bytes
from hetlora.messages.device import CapabilityReport, TrainingSettings
from hetlora.messages.management import RunStatus
from hetlora.messages.masking import SecureAggregation
from hetlora.states import AssignmentState, RunState, is_final

pytestmark = pytest.mark.slow

RANKS = {"rank-1": 1, "rank-2": 2, "rank-4": 4, "rank-8": 8}
MORTAL = "mortal"


class Killed(BaseException):
    """The process of the device ends."""


class DeadlyLine(httpx.HTTPTransport):
    """Ends whoever has shared its secrets and asks what is next."""

    shared = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.shared:
            raise Killed
        answer = super().handle_request(request)
        self.shared = b'"shares"' in request.content
        return answer


def is_killed_after_sharing(fleet: TinyFleet) -> bool:
    """Whether the device came as far as that; its process is gone then, and it tells nobody."""
    try:
        with EdgeClient(
            fleet.service.url,
            POPULATION,
            fleet.work / MORTAL,
            enrolment_token=fleet.enrolment_token,
            capabilities=for_rank(fleet, 4),
            threads=1,
            http=DeadlyLine(),
        ) as client:
            for text, label in labelled_rows(fleet.bundle.manifest.labels, 6):
                client.examples.put(text, label)
            client.run_once()
    except Killed:
        return True
    return False


def for_rank(fleet: TinyFleet, rank: int) -> CapabilityReport:
    """A profile whose traffic limit allows `rank`, whose update goes up as wide as the run, and no more."""
    manifest = fleet.bundle.manifest
    spec, down = manifest.adapter, rank * manifest.cost_model.adapter_bytes_per_rank
    return capabilities(down + max_masked_bytes(size_of(spec, spec.max_rank)))


def local_updates(
    fleet: TinyFleet, run: RunStatus, names: Collection[str], round_index: int = 0
) -> list[Adapter]:
    """What devices trained in the run's round, as they keep it: nobody else has it."""
    updates = []
    for name in names:
        kept = Adapters(DeviceFolder(Path(fleet.work / name)))
        local = kept.index().newest_local
        assert local is not None
        assert (local.run_id, local.round_index) == (run.run_id, round_index)
        updates.append(kept.read(local)[1].adapter)
    return updates


def is_waiting_to_mask(fleet: TinyFleet, name: str) -> bool:
    """Whether a device has trained, and waits for the others of its cohort."""
    with closing(DeviceDatabase(DeviceFolder(fleet.work / name).database)) as database:
        status = AssignmentStore(database).status()
    return status is not None and "mask_secrets" in status.stored_bytes


def masked_run(fleet: TinyFleet, goal_count: int, **settings: object) -> RunStatus:
    """One round of HetLoRA; in the first nobody prunes, as there is nothing to be pruned yet."""
    return fleet.start_run(
        **{
            "rounds": 1,
            "goal_count": goal_count,
            "lease_seconds": 12,
            "secure_aggregation": SecureAggregation(),
        }
        | settings
    )


def test_version_is_the_plain_mean_of_the_survivors_and_of_all_once_the_lost_one_is_back(
    fleet: TinyFleet,
) -> None:
    run = masked_run(fleet, 5)
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(is_killed_after_sharing, fleet)
        for name, rank in RANKS.items():
            fleet.device(name, for_rank(fleet, rank))
        assert killed.result()
    finished = fleet.finished(run)
    assert finished.state is RunState.COMPLETED
    updates = local_updates(fleet, run, RANKS)
    assert {update.rank for update in updates} == {1, 2, 4, 8}
    assert_is_merge(fleet.committed(finished.adapter_version), updates)
    assert len(fleet.in_state(run, AssignmentState.ACCEPTED)) == 4

    unpruned = TrainingSettings(steps=3, batch_size=4, max_tokens=16, pruning_decay=1.0)
    again = masked_run(fleet, 5, rounds=2, training=unpruned)
    fleet.device(MORTAL, for_rank(fleet, 4))
    finished = fleet.finished(again)
    assert finished.state is RunState.COMPLETED
    everybody = (*RANKS, MORTAL)
    updates = local_updates(fleet, again, everybody, round_index=1)
    assert_is_merge(fleet.committed(finished.adapter_version), updates)


def test_devices_go_on_after_the_service_was_killed_in_the_middle_of_their_masks(fleet: TinyFleet) -> None:
    run = masked_run(fleet, 3)
    names = ("rank-2", "rank-4", "rank-8")
    for name in names[:2]:
        fleet.device(name, for_rank(fleet, RANKS[name]))
    wait_until(lambda: all(is_waiting_to_mask(fleet, name) for name in names[:2]), "two that wait")
    fleet.service.kill()
    fleet.service.start()
    fleet.device(names[2], for_rank(fleet, 8))
    finished = fleet.finished(run)
    assert finished.state is RunState.COMPLETED
    assert_is_merge(fleet.committed(finished.adapter_version), local_updates(fleet, run, names))


def test_devices_that_are_killed_at_random_come_to_the_plain_mean_of_those_who_are_in(
    fleet: TinyFleet,
) -> None:
    run = masked_run(fleet, 4, over_selection=1.25, report_window_seconds=25)
    for name, rank in (RANKS | {MORTAL: 4}).items():
        fleet.device(name, for_rank(fleet, rank))
    wait_until(lambda: any(is_waiting_to_mask(fleet, name) for name in fleet.devices), "one that waits")
    rng, kills = random.Random(8), 0
    while kills < 10 and not is_final(fleet.operator.run(run.run_id).state):
        device = fleet.devices[rng.choice([*fleet.devices])]
        device.kill()
        device.start()
        kills += 1
        time.sleep(rng.uniform(0.2, 1.5))
    finished = fleet.finished(run)
    assert finished.state is RunState.COMPLETED
    accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
    last = max(own.attempt for own in accepted)
    names = [own.device_name for own in accepted if own.attempt == last]
    print(f"{kills} kills, {len(names)} in the sum of attempt {last}")
    assert len(names) >= 3
    assert_is_merge(fleet.committed(finished.adapter_version), local_updates(fleet, run, names))
