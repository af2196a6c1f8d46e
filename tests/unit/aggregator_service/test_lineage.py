"""What an adapter version came from, as the registry reads it off runs and rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_device import FakeDevice
from many_rows import NUMBERED, add_versions, analyze, asked_of, multiply, read_whole
from service_bundle import make_adapter, make_manifest
from service_operator import Operator
from service_server import problem
from service_verbs import add_device, deliver, hand_in, started_run, take_offer

from aggregator_service.registry.lineage import registry_entry
from aggregator_service.service import Service
from aggregator_service.storage.tables import AssignmentRow, RoundRow
from aggregator_service.worker.worker import tick
from hetlora.digest import sha256_of


def lineage(operator: Operator, version: str) -> Any:
    return operator.call("GET", f"/adapters/{version}")["lineage"]


def test_version_tells_of_its_round_cohort_and_ranks(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2, goal_count=3, over_selection=1.3, seed=7, rule="flexlora")
    devices = [make_device(seed) for seed in range(1, 5)]
    left = devices[3].started()  # asked, as 1.3 times 3 is 4 rounded up, and never done
    for device, rank in zip(devices, (1, 2, 2), strict=False):
        device.deliver(make_adapter(rank), rank)
    version = operator.committed(run_id)["adapter_version"]

    found = lineage(operator, version)

    assert left
    assert found == {
        "population": "keyboard",
        "base_model": make_manifest().base_model.id,
        "base_sha256": make_manifest().base_model.sha256,
        "bundle": bundle,
        "run_id": run_id,
        "seed": 7,
        "round_index": 0,
        "attempt": 0,
        "made_from": f"{run_id}-v000000",
        "rule": {"name": "flexlora", "weights": "examples"},
        "server_optimizer": None,
        "defence": found["defence"],
        "cohort_size": 4,
        "update_count": 3,
        "ranks": [{"rank": 1, "taken": 1, "updated": 1}, {"rank": 2, "taken": 2, "updated": 2}],
        "privacy": None,
    }
    status = operator.call("GET", f"/adapters/{version}")["status"]
    assert status == operator.items(f"/runs/{run_id}/adapters")[0]
    content, _ = operator.published(version)
    assert status["sha256"] == sha256_of(content)


def test_pruned_update_counts_at_both_of_its_ranks(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(1), rank=2)
    version = operator.committed(run_id)["adapter_version"]
    assert lineage(operator, version)["ranks"] == [
        {"rank": 1, "taken": 0, "updated": 1},
        {"rank": 2, "taken": 1, "updated": 0},
    ]


def test_later_version_names_the_one_before_and_the_initial_one_none(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2)
    for done in (1, 2):
        device.deliver(make_adapter(2))
        operator.committed(run_id, done)
    second = lineage(operator, f"{run_id}-v000002")
    assert (second["round_index"], second["made_from"]) == (1, f"{run_id}-v000001")
    initial = lineage(operator, f"{run_id}-v000000")
    asked = ("round_index", "attempt", "made_from", "cohort_size", "update_count", "ranks")
    assert [initial[name] for name in asked] == [-1, None, None, 0, 0, []]


def test_update_that_came_late_counts_in_the_round_that_merged_it(service: Service, bundle: str) -> None:
    plain = {"name": "flasc", "download_density": 1.0, "upload_density": 1.0}
    run_id = started_run(
        service, bundle, goal_count=1, over_selection=2.0, mode="buffered", rule=plain, rounds=9
    )
    quick, slow = add_device(service, "device-1"), add_device(service, "device-2")
    late = take_offer(service, slow)
    deliver(service, quick, make_adapter(2))
    tick(service)
    hand_in(service, slow, late, make_adapter(2, 2.0))
    tick(service)
    for number in (1, 2):
        found = registry_entry(service, f"{run_id}-v{number:06}").lineage
        assert (found.update_count, [(own.rank, own.taken) for own in found.ranks]) == (1, [(2, 1)])


@pytest.mark.slow
def test_lineage_reads_no_table_that_grows_as_a_whole(service: Service, bundle: str) -> None:
    run_id = started_run(service, bundle, goal_count=1, rounds=10)
    deliver(service, add_device(service), make_adapter(2))
    tick(service)
    add_versions(service, 20_000)
    multiply(service, RoundRow, 20_000, id=NUMBERED, round_index="100 + number")
    of_rounds = "one.round_id || '-' || number"
    multiply(service, AssignmentRow, 20_000, id=NUMBERED, round_id=of_rounds, offered_in=of_rounds)
    analyze(service)
    with asked_of(service) as asked:
        registry_entry(service, f"{run_id}-v000001")
    tables = {"adapter_versions", "rounds", "assignments"}
    assert len(asked) >= 5
    for own in asked:
        if own.statement.startswith("SELECT"):
            assert not read_whole(service, own) & tables, own.statement


def test_unknown_version_is_not_found(operator: Operator) -> None:
    assert problem(operator.send("GET", "/adapters/nothing")) == (404, "not_found")
