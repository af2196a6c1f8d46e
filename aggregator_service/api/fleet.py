"""`/management/v1`: populations, devices, and the record of every change of state."""

from __future__ import annotations

from aggregator_service.api.authentication import ServiceOf
from aggregator_service.api.operator_route import AuditEntryOf, RepeatableOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, page_of
from aggregator_service.enrolment import create_population, decide
from aggregator_service.storage.tables import DeviceRow, PopulationRow, Subject, TransitionRow
from aggregator_service.views import device_details, population_status, transition
from hetlora.messages.common import Name, Page
from hetlora.messages.management import (
    DeviceDecision,
    DeviceDetails,
    PopulationCreate,
    PopulationCreated,
    PopulationStatus,
    Transition,
)

router = operator_router()


@router.post("/populations", status_code=201)
def post_population(
    message: PopulationCreate, service: ServiceOf, entry: AuditEntryOf, asked: RepeatableOf
) -> PopulationCreated:
    entry.subject = message.name
    return create_population(service, message, asked)


@router.get("/populations")
def list_populations(
    service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[PopulationStatus]:
    return page_of(service, PopulationRow, PopulationRow.name, population_status, cursor=cursor, limit=limit)


@router.get("/devices")
def list_devices(
    service: ServiceOf, population: Name | None = None, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[DeviceDetails]:
    conditions = () if population is None else (DeviceRow.population == population,)
    return page_of(service, DeviceRow, DeviceRow.id, device_details, *conditions, cursor=cursor, limit=limit)


@router.post("/devices/{device_id}:decide")
def decide_device(device_id: str, message: DeviceDecision, service: ServiceOf) -> DeviceDetails:
    decide(service, device_id, message)
    with service.database.read() as session:
        return device_details(session, session.get_one(DeviceRow, device_id))


@router.get("/transitions")
def list_transitions(
    service: ServiceOf,
    subject: Subject | None = None,
    subject_id: str | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[Transition]:
    asked = ((TransitionRow.subject, subject), (TransitionRow.subject_id, subject_id))
    conditions = [column == value for column, value in asked if value is not None]
    return page_of(
        service, TransitionRow, TransitionRow.id, transition, *conditions, cursor=cursor, limit=limit
    )
