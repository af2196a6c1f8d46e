"""A service that checks signatures, with one population and one assignment."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fake_bundle import SPEC, adapter_of, tiny_files, tiny_manifest

from hetlora.adapter import Adapter
from hetlora.algebra import truncate
from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, HetloraError, NotFound, ReplayedRequest, UnknownDevice
from hetlora.manifest import MANIFEST_NAME, Manifest, Task
from hetlora.messages.common import ObjectRef, problem_of
from hetlora.messages.device import (
    Adaptation,
    CapabilityReport,
    CheckIn,
    CheckInAnswer,
    DeviceStatus,
    EnrolRequest,
    Failure,
    Offer,
    Plan,
    Receipt,
    Report,
    StartRequest,
    TrainingSettings,
)
from hetlora.partial import expand
from hetlora.plan_adapter import sent_from_bytes
from hetlora.signature import content_digest, device_id_of, parse_signature, signature_base
from hetlora.states import AssignmentState, DeviceState
from hetlora.tensors import adapter_to_bytes

NOW = 1_800_000_000.0
# Room for every rank of SPEC.
STRONG = CapabilityReport(
    source="given",
    cores=4,
    memory_total_bytes=8 * 2**30,
    memory_available_bytes=4 * 2**30,
    matmul_flops_per_second=1e11,
    disk_free_bytes=2**30,
)


# What a network that asks for a log-in answers in the place of the service.
PORTAL = httpx.Response(200, html="<h1>Accept our terms to go online</h1>")


class FakeService:
    """One population and one assignment behind the paths of docs/protocol.md.

    `faults` are taken one per request before it is looked at: an exception is raised as the network would, a
    response is sent as it is, None lets the request pass.
    """

    def __init__(
        self,
        *,
        task: Task = "text-classification",
        training: TrainingSettings | None = None,
        min_rank: int = 1,
        change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    ) -> None:
        self.files = tiny_files()
        manifest = change(tiny_manifest(self.files, task)).to_json()
        self.bundle = ObjectRef(sha256=sha256_of(manifest), size_bytes=len(manifest))
        self.objects = {sha256_of(data): data for data in (*self.files.values(), manifest)}
        self.names = {sha256_of(data): name for name, data in self.files.items()} | {
            self.bundle.sha256: MANIFEST_NAME
        }
        self.global_adapter = adapter_of(4)
        self.spec = SPEC
        self.adaptation = Adaptation()
        self.plan_adapter: bytes | None = None  # None: the global adapter, truncated
        self.frozen: bytes | None = None
        self.claimed_frozen_bytes: int | None = None
        self.offer: Offer | None = Offer(
            assignment_id="assignment-1",
            run_id="run-1",
            round_index=0,
            bundle=self.bundle,
            min_rank=min_rank,
            max_rank=4,
            round_seconds=600.0,
            training=training
            or TrainingSettings(steps=3, batch_size=2, learning_rate=0.5, max_tokens=8, pruning_decay=1.0),
            lease_expires_at=datetime(2027, 1, 15, tzinfo=UTC),
        )
        self.faults: list[Exception | httpx.Response | None] = []
        self.keys: dict[str, Ed25519PublicKey] = {}
        self.nonces: set[str] = set()
        self.requests: list[str] = []
        self.check_ins: list[CheckIn] = []
        self.bodies: list[bytes] = []
        self.updates: list[Adapter] = []
        self.reports: list[Report] = []
        self.failures: list[Failure] = []

    @property
    def http(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def fetched(self) -> list[str]:
        """Names of the objects that were asked for, in order."""
        paths = (request.split(" ")[1] for request in self.requests if "/objects/" in request)
        return [self.names.get(path.rsplit("/", 1)[1], "global adapter") for path in paths]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return fault
        try:
            return self._route(request)
        except HetloraError as error:
            return problem(error)

    def _route(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/device/v1")
        if path == "/devices":
            self._enrol(request)
        device_id = self._authenticate(request)
        if path == "/devices":
            return _json(201, DeviceStatus(device_id=device_id, state=DeviceState.ACCEPTED))
        if path.startswith("/objects/"):
            return self._object(request, path.removeprefix("/objects/"))
        answers: dict[str, Callable[[bytes], httpx.Response]] = {
            "/check-ins": self._check_in,
            "/assignments/assignment-1:start": self._start,
            "/assignments/assignment-1/update": self._update,
            "/assignments/assignment-1:submit": self._submit,
            "/assignments/assignment-1:fail": self._fail,
        }
        if path not in answers:
            raise NotFound("no such path", got=path)
        return answers[path](request.content)

    def _enrol(self, request: httpx.Request) -> None:
        raw = base64.b64decode(EnrolRequest.model_validate_json(request.content).public_key)
        self.keys[device_id_of(raw)] = Ed25519PublicKey.from_public_bytes(raw)

    def _authenticate(self, request: httpx.Request) -> str:
        parameters, signature = parse_signature(
            request.headers.get("Signature-Input"), request.headers.get("Signature")
        )
        if parameters.key_id not in self.keys:
            raise UnknownDevice("device never enrolled", got=parameters.key_id)
        body_sha256 = sha256_of(request.content)
        if request.headers["Content-Digest"] != content_digest(body_sha256) or parameters.created != int(NOW):
            raise AuthenticationFailed("digest or time is wrong")
        base = signature_base(
            parameters,
            method=request.method,
            path=request.url.path,
            query=request.url.query.decode(),
            body_sha256=body_sha256,
        )
        self.keys[parameters.key_id].verify(signature, base)  # InvalidSignature fails the test loudly
        if parameters.nonce in self.nonces:
            raise ReplayedRequest("nonce seen before")
        self.nonces.add(parameters.nonce)
        return parameters.key_id

    def _object(self, request: httpx.Request, sha256: str) -> httpx.Response:
        if sha256 not in self.objects:
            raise NotFound("no such object", got=sha256)
        data = self.objects[sha256]
        if "Range" not in request.headers:
            return httpx.Response(200, content=pieces(data))
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return httpx.Response(206, content=pieces(data[start:]), headers=headers)

    def _check_in(self, body: bytes) -> httpx.Response:
        self.check_ins.append(CheckIn.model_validate_json(body))
        reason = "work" if self.offer else "no run"
        return _json(200, CheckInAnswer(offer=self.offer, retry_after_seconds=7.0, reason=reason))

    def _start(self, body: bytes) -> httpx.Response:
        assert self.offer is not None
        rank = StartRequest.model_validate_json(body).rank
        self.received = truncate(self.global_adapter, rank)
        data = adapter_to_bytes(self.received) if self.plan_adapter is None else self.plan_adapter
        if self.plan_adapter is not None:
            self.received = sent_from_bytes(data, self.spec).adapter
        return _json(
            200,
            Plan(
                assignment_id="assignment-1",
                rank=rank,
                adapter=self._stored(data),
                seed=5,
                lease_expires_at=self.offer.lease_expires_at,
                adaptation=self.adaptation,
                frozen=None if self.frozen is None else self._stored(self.frozen, self.claimed_frozen_bytes),
            ),
        )

    def _stored(self, data: bytes, claimed_bytes: int | None = None) -> ObjectRef:
        self.objects[sha256_of(data)] = data
        return ObjectRef(sha256=sha256_of(data), size_bytes=claimed_bytes or len(data))

    def _update(self, body: bytes) -> httpx.Response:
        self.bodies.append(body)
        self.updates.append(expand(body, self.spec, self.adaptation, self.received))
        return _json(200, ObjectRef(sha256=sha256_of(body), size_bytes=len(body)))

    def _submit(self, body: bytes) -> httpx.Response:
        self.reports.append(Report.model_validate_json(body))
        return _json(200, receipt(AssignmentState.ACCEPTED))

    def _fail(self, body: bytes) -> httpx.Response:
        self.failures.append(Failure.model_validate_json(body))
        return _json(200, receipt(AssignmentState.FAILED))


def receipt(state: AssignmentState) -> Receipt:
    return Receipt(assignment_id="assignment-1", state=state, reason="so it is", retry_after_seconds=30.0)


def pieces(data: bytes, size: int = 1000, *, cut_after: int | None = None) -> Iterator[bytes]:
    """A body as it streams in; with `cut_after` the line breaks after that many pieces."""
    for number, start in enumerate(range(0, len(data), size)):
        if number == cut_after:
            raise httpx.ReadError("line is cut")
        yield data[start : start + size]


def problem(error: HetloraError) -> httpx.Response:
    return httpx.Response(
        error.status,
        content=problem_of(error).model_dump_json(),
        headers={"Content-Type": "application/problem+json"},
    )


def _json(status: int, message: object) -> httpx.Response:
    return httpx.Response(status, json=json.loads(message.model_dump_json()))  # type: ignore[attr-defined]
