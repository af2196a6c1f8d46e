"""A round without HTTP and without a worker: what a process that died would leave behind."""

from __future__ import annotations

from fake_device import CAPABILITIES, report_of
from sqlalchemy import select

from aggregator_service.assignments.assignments import start, submit
from aggregator_service.assignments.offers import check_in
from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.rounds.runs import change_run, create_run
from aggregator_service.service import Service
from aggregator_service.storage.tables import AssignmentRow, DeviceRow
from aggregator_service.storage.transitions import create
from hetlora.adapter import Adapter
from hetlora.digest import sha256_of
from hetlora.messages.device import CapabilityReport, CheckIn, CheckInAnswer, Receipt, Report
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import AssignmentState, DeviceState
from hetlora.tensors import adapter_to_bytes

CHECK_IN = CheckIn(
    protocol_version=1,
    sdk_version="",
    population="keyboard",
    capabilities=CapabilityReport.model_validate(CAPABILITIES),
    example_count=1,
)


def started_run(service: Service, bundle: str, **settings: object) -> str:
    """A running run of one round and one device, unless `settings` say otherwise."""
    one_round = {"rounds": 1, "goal_count": 1, "over_selection": 1.0, "max_rank": 2}
    chosen = RunSettings.model_validate(one_round | settings)
    run_id = create_run(service, RunCreate(population="keyboard", bundle=bundle, settings=chosen))
    change_run(service, run_id, "start")
    return run_id


def add_device(service: Service, device_id: str = "device-1") -> str:
    device = DeviceRow(
        id=device_id, state=DeviceState.ACCEPTED, population="keyboard", public_key="", name=""
    )
    with service.database.write() as session:
        create(session, device, "test", service.clock())
    return device_id


def asked(service: Service, device_id: str) -> CheckInAnswer:
    """What a check-in is answered."""
    return check_in(service, device_id, CHECK_IN)


def take_offer(service: Service, device_id: str, rank: int = 2) -> str:
    """The id of an assignment that the device has taken at a rank."""
    offer = asked(service, device_id).offer
    assert offer is not None
    start(service, device_id, offer.assignment_id, rank)
    return offer.assignment_id


def assignment_of(service: Service, device_id: str) -> str:
    """The id of the only assignment that the device ever had."""
    with service.database.read() as session:
        return session.scalars(select(AssignmentRow.id).where(AssignmentRow.device_id == device_id)).one()


def upload(service: Service, device_id: str, assignment_id: str, update: Adapter) -> None:
    data = adapter_to_bytes(update)
    terms = terms_of(service, device_id, assignment_id, sha256_of(data))
    with terms.folder.receive() as blob:
        blob.write(data)
        keep_update(service, terms, blob)


def report(service: Service, device_id: str, assignment_id: str, update: Adapter) -> Receipt:
    """What the report on an update that was uploaded is answered."""
    return submit(service, device_id, assignment_id, Report.model_validate(report_of(update)))


def hand_in(service: Service, device_id: str, assignment_id: str, update: Adapter) -> Receipt:
    upload(service, device_id, assignment_id, update)
    return report(service, device_id, assignment_id, update)


def deliver(service: Service, device_id: str, update: Adapter) -> None:
    receipt = hand_in(service, device_id, take_offer(service, device_id, update.rank), update)
    assert receipt.state is AssignmentState.ACCEPTED
