"""What is swept of uploads: those that are over, and parts of which the database knows nothing."""

from __future__ import annotations

from collections.abc import Callable

from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_objects import stored_parts
from service_operator import Operator
from sqlalchemy import select
from tus_device import TusDevice

from aggregator_service.service import Service
from aggregator_service.storage.tables import UploadRow
from aggregator_service.worker.sweep import sweep
from hetlora.tensors import adapter_to_bytes

UPDATE = adapter_to_bytes(make_adapter(2))
HALF = len(UPDATE) // 2


def known(service: Service) -> set[str]:
    with service.database.read() as session:
        return set(session.scalars(select(UploadRow.id)))


def test_uploads_go_with_their_leases_and_others_stay(
    operator: Operator,
    make_device: Callable[[int], FakeDevice],
    bundle: str,
    service: Service,
    clock: FakeClock,
) -> None:
    operator.run(bundle, goal_count=2, lease_seconds=100)
    begun = []
    for seed in (1, 2):
        tus = TusDevice(make_device(seed))
        begun.append(tus.begun(tus.device.started(), UPDATE))
        assert tus.patch(begun[-1], 0, UPDATE[:HALF]).status_code == 204
        clock.advance(50)
    sweep(service)
    assert known(service) == {begun[1]}
    (part,) = stored_parts(service)
    assert part.read_bytes() == UPDATE[:HALF]
    assert [answer.status_code for answer in tus.in_parts(begun[1], UPDATE, HALF)] == [204] * len(
        range(HALF, len(UPDATE), HALF)
    )


def test_uploads_of_assignments_that_are_over_go_before_their_leases(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str, service: Service
) -> None:
    run_id = operator.run(bundle, goal_count=1, over_selection=3)
    given_back, late, in_time = (TusDevice(make_device(seed)) for seed in (1, 2, 3))
    for tus in (given_back, late, in_time):
        assignment_id = tus.device.started()
        upload_id = tus.begun(assignment_id, UPDATE)
        assert tus.patch(upload_id, 0, UPDATE[:HALF]).status_code == 204
        if tus is given_back:
            tus.device.call("POST", f"/assignments/{assignment_id}:fail", {"code": "gone", "message": ""})
    tus.in_parts(upload_id, UPDATE, HALF)
    sweep(service)
    assert len(known(service)) == 2
    assert tus.offset(upload_id) == len(UPDATE)  # which can be asked until the update is submitted
    assert tus.device.submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"
    operator.committed(run_id)
    sweep(service)
    assert known(service) == set()
    assert stored_parts(service) == []


def test_parts_that_no_row_knows_are_removed(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    operator.run(bundle)
    tus = TusDevice(device)
    upload_id = tus.begun(device.started(), UPDATE)
    assert tus.patch(upload_id, 0, UPDATE[:HALF]).status_code == 204
    service.uploads("20261120120000-000000000000").put(b"of an upload whose row went first")
    sweep(service)
    assert [path.read_bytes() for path in stored_parts(service)] == [UPDATE[:HALF]]
    assert service.store.folders("uploads") == {upload_id}
