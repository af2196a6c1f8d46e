"""`/device/v1/adoptions`: what devices do with a version that a rollout asked them to adopt."""

from __future__ import annotations

from aggregator_service.api.device_route import DeviceId, DeviceRoute, device_router
from aggregator_service.api.errors import problems
from aggregator_service.api.route import ServiceOf
from aggregator_service.rollouts.adopting import fail, start, submit
from hetlora.messages.common import Identifier
from hetlora.messages.device import Failure, Plan, Receipt, StartRequest
from hetlora.messages.rollouts import AdoptionReport

router = device_router(DeviceRoute, 403)


@router.post("/adoptions/{assignment_id}:start", responses=problems(404, 408, 409, 413))
def start_adoption(
    assignment_id: Identifier, message: StartRequest, device_id: DeviceId, service: ServiceOf
) -> Plan:
    return start(service, device_id, assignment_id, message.rank, message.variant)


@router.post("/adoptions/{assignment_id}:submit", responses=problems(404, 408, 409, 413))
def submit_adoption(
    assignment_id: Identifier, message: AdoptionReport, device_id: DeviceId, service: ServiceOf
) -> Receipt:
    return submit(service, device_id, assignment_id, message)


@router.post("/adoptions/{assignment_id}:fail", responses=problems(404, 408, 413))
def fail_adoption(
    assignment_id: Identifier, message: Failure, device_id: DeviceId, service: ServiceOf
) -> Receipt:
    return fail(service, device_id, assignment_id, message)
