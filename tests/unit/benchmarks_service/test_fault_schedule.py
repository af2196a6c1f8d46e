from __future__ import annotations

from benchmarks.service.faults import AT_STEPS, OF_POSTGRESQL, SHARES, schedule, schedule_sha256


def test_same_seed_makes_the_same_faults_and_another_seed_others() -> None:
    first, again, other = (schedule(50, seed, database="sqlite", replicas=2) for seed in (7, 7, 8))
    assert first == again
    assert schedule_sha256(first) == schedule_sha256(again)
    assert schedule_sha256(first) != schedule_sha256(other)


def test_every_kind_of_fault_comes_and_postgresqls_own_on_postgresql_alone() -> None:
    kinds = {fault.kind for fault in schedule(1000, 0, database="postgresql", replicas=2)}
    assert kinds == set(SHARES)
    kinds = {fault.kind for fault in schedule(1000, 0, database="sqlite", replicas=2)}
    assert kinds == set(SHARES) - OF_POSTGRESQL


def test_faults_of_requests_come_at_steps_where_they_make_sense_and_to_all_replicas() -> None:
    faults = schedule(1000, 1, database="postgresql", replicas=3)
    for fault in faults:
        if fault.kind in AT_STEPS:
            assert fault.step in AT_STEPS[fault.kind]
    assert {fault.replica for fault in faults} == {0, 1, 2}
