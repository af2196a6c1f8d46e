from __future__ import annotations

import pytest

from benchmarks.service.faults import (
    AT_STEPS,
    OF_POSTGRESQL,
    OF_THE_STORE,
    SHARES,
    DatabaseName,
    Kind,
    schedule,
    schedule_sha256,
)
from benchmarks.service.stores import StoreName


def test_same_seed_makes_the_same_faults_and_another_seed_others() -> None:
    first, again, other = (schedule(50, seed, database="sqlite", replicas=2) for seed in (7, 7, 8))
    assert first == again
    assert schedule_sha256(first) == schedule_sha256(again)
    assert schedule_sha256(first) != schedule_sha256(other)


@pytest.mark.parametrize(
    ("database", "store", "left_out"),
    [
        ("postgresql", "bucket", frozenset()),
        ("postgresql", "folder", OF_THE_STORE),
        ("sqlite", "bucket", OF_POSTGRESQL),
        ("sqlite", "folder", OF_POSTGRESQL | OF_THE_STORE),
    ],
)
def test_every_kind_of_fault_comes_where_there_is_what_it_befalls(
    database: DatabaseName, store: StoreName, left_out: frozenset[Kind]
) -> None:
    faults = schedule(1500, 0, database=database, replicas=2, store=store)
    assert {fault.kind for fault in faults} == set(SHARES) - left_out


def test_faults_of_requests_come_at_steps_where_they_make_sense_and_to_all_replicas() -> None:
    faults = schedule(1000, 1, database="postgresql", replicas=3)
    for fault in faults:
        if fault.kind in AT_STEPS:
            assert fault.step in AT_STEPS[fault.kind]
    assert {fault.replica for fault in faults} == {0, 1, 2}
