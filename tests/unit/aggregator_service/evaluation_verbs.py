"""Devices that hold examples out, without HTTP and without a worker."""

from __future__ import annotations

from service_bundle import make_adapter
from service_verbs import CHECK_IN, add_device, deliver, started_run
from sqlalchemy import select

from aggregator_service.api.views import adapter_version_status
from aggregator_service.assignments.evaluating import start, submit
from aggregator_service.assignments.evaluation_offers import check_in_to_train_or_evaluate
from aggregator_service.rounds.runs import get_run
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.tables import AdapterVersionRow
from aggregator_service.worker.worker import tick
from hetlora.messages.device import CheckInAnswer, Receipt
from hetlora.messages.evaluation import EvaluationReport, EvaluationStatus

REPORT = EvaluationReport(example_count=10, loss=0.5, correct_count=4)
EVALUATION = {"devices": 2, "minimum_reports": 2, "window_seconds": 600}


def evaluated_run(
    service: Service, bundle: str, rounds: int = 1, rule: str = "hetlora", **evaluation: object
) -> str:
    """A run of one device a round, of which one round has committed."""
    run_id = started_run(service, bundle, rounds=rounds, rule=rule, evaluation=EVALUATION | evaluation)
    commit(service, add_device(service, "trainer"))
    return run_id


def commit(service: Service, device_id: str) -> None:
    deliver(service, device_id, make_adapter(2))
    tick(service)


def asked(
    service: Service, device_id: str, held_out_count: int = 10, example_count: int = 0
) -> CheckInAnswer:
    """What a check-in is answered, of a device that could train on nothing unless examples are given."""
    told = {"held_out_count": held_out_count, "example_count": example_count}
    return check_in_to_train_or_evaluate(service, device_id, CHECK_IN.model_copy(update=told))


def taken(service: Service, device_id: str) -> str:
    """The id of an evaluation that the device has taken."""
    offer = asked(service, device_id).offer
    assert offer is not None
    assert offer.kind == "evaluate"
    start(service, device_id, offer.assignment_id, 1)
    return offer.assignment_id


def report(service: Service, device_id: str, report: EvaluationReport = REPORT) -> Receipt:
    """Offer, start and report of a device."""
    return submit(service, device_id, taken(service, device_id), report)


def evaluation_of(service: Service, run_id: str, round_index: int = 0) -> EvaluationStatus | None:
    """The evaluation of the version that a round made, as operators see it."""
    with service.database.read() as session:
        of_round = AdapterVersionRow.run_id == run_id, AdapterVersionRow.round_index == round_index
        row = session.scalars(select(AdapterVersionRow).where(*of_round)).one()
        return adapter_version_status(session, row).evaluation


def state_of(service: Service, assignment_id: str) -> tuple[str, str]:
    """State and reason of a device's part."""
    with service.database.read() as session:
        row = session.get_one(EvaluationAssignmentRow, assignment_id)
        return row.state.value, row.reason


def run_state(service: Service, run_id: str) -> str:
    with service.database.read() as session:
        return get_run(session, run_id).state.value


def first_round(service: Service, bundle: str) -> None:
    """One committed round of a run that goes on, whose version is evaluated."""
    started_run(service, bundle, rounds=3, evaluation=EVALUATION)
    deliver(service, add_device(service, "device-1"), make_adapter(2))
    tick(service)
