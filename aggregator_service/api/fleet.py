"""`/management/v1`: populations, devices, and the record of every change of state."""

from __future__ import annotations

from aggregator_service.api.errors import problems
from aggregator_service.api.operator_route import AuditEntryOf, IdempotencyKeyOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, NewestFirst, page_of, page_of_views
from aggregator_service.api.route import ServiceOf
from aggregator_service.api.views import (
    assignment_statuses,
    device_details,
    population_status,
    replaced_key,
    transition,
)
from aggregator_service.devices.admission import check_device, decide, preauthorize
from aggregator_service.devices.populations import create_population, rotate_token
from aggregator_service.service import Service
from aggregator_service.storage.tables import (
    AssignmentRow,
    DeviceRow,
    PopulationRow,
    ReplacedKeyRow,
    TransitionRow,
)
from hetlora.messages.common import Identifier, Name, Page
from hetlora.messages.fleet import (
    DeviceDecision,
    DeviceDetails,
    DevicePreauthorization,
    PopulationCreate,
    PopulationCreated,
    PopulationStatus,
    ReplacedKey,
    Subject,
    TokenRotation,
    Transition,
)
from hetlora.messages.management import AssignmentStatus
from hetlora.states import DeviceState

router = operator_router()


@router.post("/populations", status_code=201, responses=problems(408, 409, 413))
def post_population(
    message: PopulationCreate, service: ServiceOf, entry: AuditEntryOf, asked: IdempotencyKeyOf
) -> PopulationCreated:
    entry.subject = message.name
    return create_population(service, message, asked)


@router.post("/populations/{name}:rotate-token", responses=problems(404, 408, 409, 413))
def post_token_rotation(
    name: Name, message: TokenRotation, service: ServiceOf, asked: IdempotencyKeyOf
) -> PopulationCreated:
    return rotate_token(service, name, message, asked)


@router.get("/populations")
def list_populations(
    service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[PopulationStatus]:
    return page_of(service, PopulationRow, PopulationRow.name, population_status, cursor=cursor, limit=limit)


@router.get("/devices")
def list_devices(
    service: ServiceOf,
    population: Name | None = None,
    state: DeviceState | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[DeviceDetails]:
    asked = ((DeviceRow.population, population), (DeviceRow.state, state))
    conditions = [column == value for column, value in asked if value is not None]
    return page_of(service, DeviceRow, DeviceRow.id, device_details, *conditions, cursor=cursor, limit=limit)


@router.post("/devices/{device_id}:decide", responses=problems(404, 408, 409, 413))
def decide_device(device_id: Identifier, message: DeviceDecision, service: ServiceOf) -> DeviceDetails:
    decide(service, device_id, message)
    return _details(service, device_id)


@router.post("/devices:preauthorize", status_code=201, responses=problems(404, 408, 409, 413))
def post_preauthorization(
    message: DevicePreauthorization, service: ServiceOf, entry: AuditEntryOf
) -> DeviceDetails:
    entry.subject = preauthorize(service, message)
    return _details(service, entry.subject)


@router.get("/devices/{device_id}/assignments", responses=problems(404))
def list_assignments_of_device(
    device_id: Identifier, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[AssignmentStatus]:
    """The newest first, of whichever run: what became of each, and why."""
    check_device(service, device_id)
    return page_of_views(
        service,
        AssignmentRow,
        AssignmentRow.id,
        assignment_statuses,
        AssignmentRow.device_id == device_id,
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


@router.get("/devices/{device_id}/replaced-keys", responses=problems(404))
def list_replaced_keys(
    device_id: Identifier, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[ReplacedKey]:
    check_device(service, device_id)
    of_device = ReplacedKeyRow.device_id == device_id
    return page_of(
        service, ReplacedKeyRow, ReplacedKeyRow.id, replaced_key, of_device, cursor=cursor, limit=limit
    )


def _details(service: Service, device_id: str) -> DeviceDetails:
    with service.database.read() as session:
        return device_details(session, session.get_one(DeviceRow, device_id))


@router.get("/transitions")
def list_transitions(
    service: ServiceOf,
    subject: Subject | None = None,
    subject_id: Identifier | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
    newest_first: NewestFirst = False,
) -> Page[Transition]:
    asked = ((TransitionRow.subject, subject), (TransitionRow.subject_id, subject_id))
    conditions = [column == value for column, value in asked if value is not None]
    return page_of(
        service,
        TransitionRow,
        TransitionRow.id,
        transition,
        *conditions,
        cursor=cursor,
        limit=limit,
        newest_first=newest_first,
    )
