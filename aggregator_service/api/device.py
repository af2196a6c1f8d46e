"""`/device/v1`: what devices ask."""

from __future__ import annotations

from contextlib import ExitStack

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from aggregator_service.api.body import BINARY_BODY, received_blob
from aggregator_service.api.device_route import (
    DeviceId,
    DeviceRoute,
    SignedSha256,
    device_router,
    signed_request,
)
from aggregator_service.api.errors import problems
from aggregator_service.api.objects import BINARY, Download, object_response
from aggregator_service.api.open_transfers import open_body, open_download
from aggregator_service.api.route import OpenRoute, ServiceOf
from aggregator_service.assignments.assignments import fail, note_fetch, start, submit
from aggregator_service.assignments.masking import take_step
from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.devices.device_keys import rotate_key
from aggregator_service.devices.enrolment import enrol
from aggregator_service.rollouts.asking import check_in
from hetlora.digest import Sha256
from hetlora.messages.common import Identifier, ObjectRef
from hetlora.messages.device import (
    CheckIn,
    CheckInAnswer,
    DeviceStatus,
    EnrolRequest,
    Failure,
    KeyRotation,
    Plan,
    Receipt,
    Report,
    StartRequest,
)
from hetlora.messages.masking import MaskingStep, MaskingTask

# Enrolment is signed by the key in its body, so its handler checks the signature itself.
enrolment = device_router(OpenRoute)
router = device_router(DeviceRoute, 403)
_OF_ASSIGNMENT = problems(404, 408, 409, 413)


@enrolment.post("/devices", status_code=201, responses=problems(408, 409, 413))
def post_device(message: EnrolRequest, request: Request, service: ServiceOf) -> DeviceStatus:
    return enrol(service, message, signed_request(request))


@router.post("/devices:rotate-key", responses=problems(408, 409, 413))
def post_key_rotation(
    message: KeyRotation, request: Request, device_id: DeviceId, service: ServiceOf
) -> DeviceStatus:
    return rotate_key(service, device_id, message, signed_request(request))


@router.post("/check-ins", responses=problems(408, 413))
def post_check_in(message: CheckIn, device_id: DeviceId, service: ServiceOf) -> CheckInAnswer:
    return check_in(service, device_id, message)


@router.get("/objects/{sha256}", response_class=Response, responses=BINARY)
async def get_object(sha256: Sha256, request: Request, device_id: DeviceId, service: ServiceOf) -> Response:
    def found() -> Response:
        response = object_response(request, service.objects, sha256, "application/octet-stream")
        note_fetch(service, device_id, sha256)
        return response

    with ExitStack() as place:
        place.enter_context(open_download(request, device_id))
        response = await run_in_threadpool(found)
        if isinstance(response, Download):
            response.place = place.pop_all()
        return response


@router.post("/assignments/{assignment_id}:start", responses=_OF_ASSIGNMENT)
def start_assignment(
    assignment_id: Identifier, message: StartRequest, device_id: DeviceId, service: ServiceOf
) -> Plan:
    return start(service, device_id, assignment_id, message.rank, message.variant)


@router.put("/assignments/{assignment_id}/update", openapi_extra=BINARY_BODY, responses=_OF_ASSIGNMENT)
async def put_update(
    assignment_id: Identifier, request: Request, device_id: DeviceId, sha256: SignedSha256, service: ServiceOf
) -> ObjectRef:
    with open_body(request, device_id):
        terms = await run_in_threadpool(terms_of, service, device_id, assignment_id, sha256)
        async with received_blob(request, terms.folder, terms.max_bytes) as blob:
            return await run_in_threadpool(keep_update, service, terms, blob)


@router.post("/assignments/{assignment_id}:submit", responses=_OF_ASSIGNMENT)
def submit_assignment(
    assignment_id: Identifier, message: Report, device_id: DeviceId, service: ServiceOf
) -> Receipt:
    return submit(service, device_id, assignment_id, message)


@router.post("/assignments/{assignment_id}:mask", responses=_OF_ASSIGNMENT)
def mask_assignment(
    assignment_id: Identifier, message: MaskingStep, device_id: DeviceId, service: ServiceOf
) -> MaskingTask:
    return take_step(service, device_id, assignment_id, message)


@router.post("/assignments/{assignment_id}:fail", responses=problems(404, 408, 413))
def fail_assignment(
    assignment_id: Identifier, message: Failure, device_id: DeviceId, service: ServiceOf
) -> Receipt:
    return fail(service, device_id, assignment_id, message)
