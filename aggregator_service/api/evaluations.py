"""`/device/v1/evaluations`: what devices do with an evaluation that they were offered."""

from __future__ import annotations

from aggregator_service.api.device_route import DeviceId, DeviceRoute, device_router
from aggregator_service.api.errors import problems
from aggregator_service.api.route import ServiceOf
from aggregator_service.assignments.evaluating import fail, start, submit
from hetlora.messages.common import Identifier
from hetlora.messages.device import Failure, Plan, Receipt, StartRequest
from hetlora.messages.evaluation import EvaluationReport

router = device_router(DeviceRoute, 403)


@router.post("/evaluations/{assignment_id}:start", responses=problems(404, 408, 409, 413))
def start_evaluation(
    assignment_id: Identifier, message: StartRequest, device_id: DeviceId, service: ServiceOf
) -> Plan:
    return start(service, device_id, assignment_id, message.rank, message.variant)


@router.post("/evaluations/{assignment_id}:submit", responses=problems(404, 408, 409, 413))
def submit_evaluation(
    assignment_id: Identifier, message: EvaluationReport, device_id: DeviceId, service: ServiceOf
) -> Receipt:
    return submit(service, device_id, assignment_id, message)


@router.post("/evaluations/{assignment_id}:fail", responses=problems(404, 408, 413))
def fail_evaluation(
    assignment_id: Identifier, message: Failure, device_id: DeviceId, service: ServiceOf
) -> Receipt:
    return fail(service, device_id, assignment_id, message)
