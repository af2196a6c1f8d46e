"""The service as a device sees it: one method per request of docs/protocol.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge_sdk.transport.transport import Transport
from hetlora.messages.common import Answer, Message, ObjectRef, parse_answer
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
    TaskKind,
)
from hetlora.messages.evaluation import EvaluationReport
from hetlora.messages.masking import MaskingStep, MaskingTask, MaskKeys, MaskPoll, MaskReveal, MaskShares
from hetlora.messages.rollouts import AdoptionReport

_FAMILIES: Final[dict[TaskKind, str]] = {
    "train": "/device/v1/assignments",
    "evaluate": "/device/v1/evaluations",
    "adopt": "/device/v1/adoptions",
}
_JSON: Final = {"Content-Type": "application/json"}
_TENSORS: Final = {"Content-Type": "application/octet-stream"}


class DeviceService:
    """Typed requests over a transport; errors are those of `Transport.exchange`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def enrol(self, request: EnrolRequest) -> DeviceStatus:
        return self._post("/device/v1/devices", request, DeviceStatus)

    def rotate_key(self, request: KeyRotation) -> DeviceStatus:
        return self._post("/device/v1/devices:rotate-key", request, DeviceStatus)

    def check_in(self, request: CheckIn) -> CheckInAnswer:
        return self._post("/device/v1/check-ins", request, CheckInAnswer)

    def start(self, assignment_id: str, request: StartRequest, kind: TaskKind = "train") -> Plan:
        return self._post(f"{_FAMILIES[kind]}/{assignment_id}:start", request, Plan)

    def upload(self, assignment_id: str, update: bytes) -> ObjectRef:
        path = f"/device/v1/assignments/{assignment_id}/update"
        return self._exchange("PUT", path, update, _TENSORS, ObjectRef)

    def submit(self, assignment_id: str, report: Report) -> Receipt:
        return self._post(f"/device/v1/assignments/{assignment_id}:submit", report, Receipt)

    def mask(self, assignment_id: str, step: MaskKeys | MaskShares | MaskReveal | MaskPoll) -> MaskingTask:
        path = f"/device/v1/assignments/{assignment_id}:mask"
        return self._post(path, MaskingStep(step=step), MaskingTask)

    def report_evaluation(self, assignment_id: str, report: EvaluationReport) -> Receipt:
        return self._post(f"/device/v1/evaluations/{assignment_id}:submit", report, Receipt)

    def report_adoption(self, assignment_id: str, report: AdoptionReport) -> Receipt:
        return self._post(f"/device/v1/adoptions/{assignment_id}:submit", report, Receipt)

    def fail(self, assignment_id: str, failure: Failure, kind: TaskKind = "train") -> Receipt:
        return self._post(f"{_FAMILIES[kind]}/{assignment_id}:fail", failure, Receipt)

    def _post(self, path: str, message: Message, answer: type[Answer]) -> Answer:
        return self._exchange("POST", path, message.model_dump_json().encode(), _JSON, answer)

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], answer: type[Answer]
    ) -> Answer:
        data = self._transport.exchange(method, path, body=body, headers=headers)
        return parse_answer(answer, data, service_url=self._transport.service_url)
