"""A round without HTTP and without a worker: what a process that died would leave behind."""

from __future__ import annotations

from fake_device import CAPABILITIES, report_of

from aggregator_service.assignments import start, submit
from aggregator_service.offers import check_in
from aggregator_service.runs import change_run, create_run
from aggregator_service.service import Service
from aggregator_service.storage.tables import DeviceRow
from aggregator_service.transitions import create
from aggregator_service.updates import admit, keep_update
from hetlora.adapter import Adapter
from hetlora.messages.device import CapabilityReport, CheckIn, CheckInAnswer, Receipt, Report
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import AssignmentState, DeviceState
from hetlora.tensors import adapter_to_bytes


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
    message = CheckIn(
        protocol_version=1,
        sdk_version="",
        population="keyboard",
        capabilities=CapabilityReport.model_validate(CAPABILITIES),
        example_count=1,
    )
    return check_in(service, device_id, message)


def take_offer(service: Service, device_id: str, rank: int = 2) -> str:
    """The id of an assignment that the device has taken at a rank."""
    offer = asked(service, device_id).offer
    assert offer is not None
    start(service, device_id, offer.assignment_id, rank)
    return offer.assignment_id


def hand_in(service: Service, device_id: str, assignment_id: str, update: Adapter) -> Receipt:
    admission = admit(service, device_id, assignment_id, "")
    with admission.folder.receive() as blob:
        blob.write(adapter_to_bytes(update))
        keep_update(service, admission, blob)
    return submit(service, device_id, assignment_id, Report.model_validate(report_of(update)))


def deliver(service: Service, device_id: str, update: Adapter) -> None:
    receipt = hand_in(service, device_id, take_offer(service, device_id, update.rank), update)
    assert receipt.state is AssignmentState.ACCEPTED
