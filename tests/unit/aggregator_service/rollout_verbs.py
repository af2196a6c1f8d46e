"""Devices and operators of a rollout, without HTTP and without a worker."""

from __future__ import annotations

from fake_clock import FakeClock
from service_bundle import make_adapter
from service_verbs import CHECK_IN, add_device, deliver, started_run
from sqlalchemy import select

from aggregator_service.api.rollout_views import rollout_status_at
from aggregator_service.rollouts.adopting import start, submit
from aggregator_service.rollouts.asking import check_in
from aggregator_service.rollouts.rollouts import change_rollout, create_rollout, get_rollout
from aggregator_service.service import Service
from aggregator_service.storage.rollout_tables import RolloutDeviceRow
from aggregator_service.storage.tables import AdapterVersionRow, TransitionRow
from aggregator_service.worker.worker import tick
from hetlora.messages.device import CheckInAnswer, Offer, Receipt
from hetlora.messages.rollouts import AdoptionReport, RolloutCreate, RolloutStatus

ABLE = {"abilities": ("adopt",), "example_count": 0}
ONE_STAGE = {"stages": [{"share": 1.0, "least_reports": 3}]}


def made_versions(service: Service, bundle: str, rounds: int = 1) -> list[str]:
    """The versions of a run that has ended, the one that it began with first."""
    run_id = started_run(service, bundle, rounds=rounds)
    trainer = add_device(service, "trainer")
    for number in range(rounds):
        deliver(service, trainer, make_adapter(2, 1.0 + number))
        tick(service)
    with service.database.read() as session:
        of_run = select(AdapterVersionRow.id).where(AdapterVersionRow.run_id == run_id)
        return list(session.scalars(of_run.order_by(AdapterVersionRow.id)))


def running(service: Service, version: str, *, group: str | None = None, **settings: object) -> str:
    """The id of a rollout that was made and started, a second after all that was before."""
    assert isinstance(service.clock, FakeClock)
    service.clock.advance(1)
    message = {"version": version, "group": group, "settings": ONE_STAGE | settings}
    rollout_id = create_rollout(service, RolloutCreate.model_validate(message))
    change_rollout(service, rollout_id, "start")
    return rollout_id


def asked(service: Service, device_id: str, **told: object) -> CheckInAnswer:
    """What a check-in of a client that can adopt is answered."""
    return check_in(service, device_id, CHECK_IN.model_copy(update=ABLE | told))


def offered(service: Service, device_id: str) -> Offer:
    """The adoption that a device is offered."""
    offer = asked(service, device_id).offer
    assert offer is not None
    assert offer.kind == "adopt"
    return offer


def taken(service: Service, device_id: str) -> tuple[str, str]:
    """The id of an adoption that the device has started on, and the adapter that it is sent."""
    offer = offered(service, device_id)
    plan = start(service, device_id, offer.assignment_id, 1)
    return offer.assignment_id, plan.adapter.sha256


def told(
    service: Service, device_id: str, outcome: str = "adopted", losses: tuple[float, float] | None = None
) -> Receipt:
    """Offer, start and report of a device; `losses` are the new one and the former one."""
    ask_id, adapter = taken(service, device_id)
    return submit(service, device_id, ask_id, report_of(adapter, outcome, losses))


def report_of(
    adapter: str, outcome: str = "adopted", losses: tuple[float, float] | None = None
) -> AdoptionReport:
    scored = {} if losses is None else {"example_count": 10, "new_loss": losses[0], "former_loss": losses[1]}
    reason = "not_worse" if outcome == "adopted" else "worse"
    return AdoptionReport.model_validate({"adapter": adapter, "outcome": outcome, "reason": reason, **scored})


def status(service: Service, rollout_id: str) -> RolloutStatus:
    with service.database.read() as session:
        return rollout_status_at(service.clock())(session, get_rollout(session, rollout_id))


def state_of(service: Service, ask_id: str) -> str:
    with service.database.read() as session:
        return str(session.get_one(RolloutDeviceRow, ask_id).state)


def version_state(service: Service, version: str) -> str:
    with service.database.read() as session:
        return str(session.get_one(AdapterVersionRow, version).state)


def reasons(service: Service, subject: str, subject_id: str) -> list[tuple[str, str]]:
    """Each state that a subject came to, and why."""
    of_subject = TransitionRow.subject == subject, TransitionRow.subject_id == subject_id
    with service.database.read() as session:
        found = session.scalars(select(TransitionRow).where(*of_subject).order_by(TransitionRow.id))
        return [(row.new, row.reason) for row in found]
