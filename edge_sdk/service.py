"""The service as a device sees it: one method per request of docs/protocol.md."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import ValidationError

from edge_sdk.transport import Transport
from hetlora.errors import MalformedMessage, faults_in_words
from hetlora.messages.common import Message, ObjectRef
from hetlora.messages.device import (
    CheckIn,
    CheckInAnswer,
    DeviceStatus,
    EnrolRequest,
    Failure,
    Plan,
    Receipt,
    Report,
    StartRequest,
)

Answer = TypeVar("Answer", bound=Message)

_JSON: Final = {"Content-Type": "application/json"}
_TENSORS: Final = {"Content-Type": "application/octet-stream"}


class DeviceService:
    """Typed requests over a transport; errors are those of `Transport.exchange`, and MalformedMessage."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def enrol(self, request: EnrolRequest) -> DeviceStatus:
        return self._post("/device/v1/devices", request, DeviceStatus)

    def check_in(self, request: CheckIn) -> CheckInAnswer:
        return self._post("/device/v1/check-ins", request, CheckInAnswer)

    def start(self, assignment_id: str, request: StartRequest) -> Plan:
        return self._post(f"/device/v1/assignments/{assignment_id}:start", request, Plan)

    def upload(self, assignment_id: str, update: bytes) -> ObjectRef:
        path = f"/device/v1/assignments/{assignment_id}/update"
        return _parsed(self._transport.exchange("PUT", path, body=update, headers=_TENSORS), ObjectRef)

    def submit(self, assignment_id: str, report: Report) -> Receipt:
        return self._post(f"/device/v1/assignments/{assignment_id}:submit", report, Receipt)

    def fail(self, assignment_id: str, failure: Failure) -> Receipt:
        return self._post(f"/device/v1/assignments/{assignment_id}:fail", failure, Receipt)

    def _post(self, path: str, message: Message, answer: type[Answer]) -> Answer:
        body = message.model_dump_json().encode()
        return _parsed(self._transport.exchange("POST", path, body=body, headers=_JSON), answer)


def _parsed(data: bytes, kind: type[Answer]) -> Answer:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise MalformedMessage(
            "the service's answer does not fit its schema",
            got=faults_in_words(error.errors()),
            expected=kind.__name__,
        ) from error
