"""`/management/v1`: labels and groups of devices, rollouts of versions, what these asked of devices."""

from __future__ import annotations

from fastapi import Response

from aggregator_service.api.errors import problems
from aggregator_service.api.operator_route import AuditEntryOf, IdempotencyKeyOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, page_of
from aggregator_service.api.rollout_views import (
    group_status,
    rollout_device_status,
    rollout_status_at,
)
from aggregator_service.api.route import ServiceOf
from aggregator_service.devices.admission import check_device
from aggregator_service.rollouts.groups import (
    count_devices,
    create_group,
    delete_group,
    get_group,
    label_device,
)
from aggregator_service.rollouts.rollouts import RolloutVerb, change_rollout, create_rollout, get_rollout
from aggregator_service.service import Service
from aggregator_service.storage.rollout_tables import GroupRow, RolloutDeviceRow, RolloutRow
from hetlora.messages.common import Identifier, Name, Page
from hetlora.messages.rollouts import (
    DeviceLabels,
    GroupCreate,
    GroupStatus,
    LabelChange,
    RolloutCreate,
    RolloutDeviceStatus,
    RolloutStatus,
)
from hetlora.states import RolloutDeviceState

router = operator_router()


@router.post("/devices/{device_id}:label", responses=problems(404, 408, 413))
def post_labels(device_id: Identifier, message: LabelChange, service: ServiceOf) -> DeviceLabels:
    return label_device(service, device_id, message)


@router.get("/devices/{device_id}/rollouts", responses=problems(404))
def list_rollouts_of_device(
    device_id: Identifier, service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[RolloutDeviceStatus]:
    check_device(service, device_id)
    return page_of(
        service,
        RolloutDeviceRow,
        RolloutDeviceRow.id,
        rollout_device_status,
        RolloutDeviceRow.device_id == device_id,
        cursor=cursor,
        limit=limit,
    )


@router.post("/groups", status_code=201, responses=problems(404, 408, 409, 413))
def post_group(
    message: GroupCreate, service: ServiceOf, entry: AuditEntryOf, asked: IdempotencyKeyOf
) -> GroupStatus:
    entry.subject = create_group(service, message, asked)
    return _group(service, entry.subject)


@router.get("/groups")
def list_groups(
    service: ServiceOf, population: Name | None = None, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[GroupStatus]:
    conditions = () if population is None else (GroupRow.population == population,)
    return page_of(service, GroupRow, GroupRow.id, group_status, *conditions, cursor=cursor, limit=limit)


@router.get("/groups/{group_id}", responses=problems(404))
def get_group_status(group_id: Identifier, service: ServiceOf) -> GroupStatus:
    """With the number of its devices, which is counted for this."""
    return _group(service, group_id)


@router.post("/groups/{group_id}:delete", status_code=204, responses=problems(404))
def post_group_deletion(group_id: Identifier, service: ServiceOf) -> Response:
    delete_group(service, group_id)
    return Response(status_code=204)


@router.post("/rollouts", status_code=201, responses=problems(404, 408, 409, 413))
def post_rollout(
    message: RolloutCreate, service: ServiceOf, entry: AuditEntryOf, asked: IdempotencyKeyOf
) -> RolloutStatus:
    entry.subject = create_rollout(service, message, asked)
    return _rollout(service, entry.subject)


@router.get("/rollouts")
def list_rollouts(
    service: ServiceOf, population: Name | None = None, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[RolloutStatus]:
    conditions = () if population is None else (RolloutRow.population == population,)
    view = rollout_status_at(service.clock())
    return page_of(service, RolloutRow, RolloutRow.id, view, *conditions, cursor=cursor, limit=limit)


@router.get("/rollouts/{rollout_id}", responses=problems(404))
def get_rollout_status(rollout_id: Identifier, service: ServiceOf) -> RolloutStatus:
    return _rollout(service, rollout_id)


@router.get("/rollouts/{rollout_id}/devices", responses=problems(404))
def list_devices_of_rollout(
    rollout_id: Identifier,
    service: ServiceOf,
    state: RolloutDeviceState | None = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[RolloutDeviceStatus]:
    with service.database.read() as session:
        get_rollout(session, rollout_id)
    conditions = [RolloutDeviceRow.rollout_id == rollout_id]
    if state is not None:
        conditions.append(RolloutDeviceRow.state == state)
    return page_of(
        service,
        RolloutDeviceRow,
        RolloutDeviceRow.id,
        rollout_device_status,
        *conditions,
        cursor=cursor,
        limit=limit,
    )


@router.post("/rollouts/{rollout_id}:{verb}", responses=problems(404, 409))
def post_rollout_verb(rollout_id: Identifier, verb: RolloutVerb, service: ServiceOf) -> RolloutStatus:
    change_rollout(service, rollout_id, verb)
    return _rollout(service, rollout_id)


def _group(service: Service, group_id: str) -> GroupStatus:
    with service.database.read() as session:
        row = get_group(session, group_id)
        return group_status(session, row).model_copy(update={"devices": count_devices(session, row)})


def _rollout(service: Service, rollout_id: str) -> RolloutStatus:
    with service.database.read() as session:
        return rollout_status_at(service.clock())(session, get_rollout(session, rollout_id))
