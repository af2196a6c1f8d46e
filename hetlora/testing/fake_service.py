"""What `/device/v1` answers, without a database: one offer at a time, and all that came is noted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from pydantic import BaseModel, ValidationError

from hetlora.adapter import Adapter, initial_adapter
from hetlora.algebra import truncate
from hetlora.bundle import Bundle
from hetlora.digest import sha256_of
from hetlora.errors import (
    DigestMismatch,
    HetloraError,
    MalformedMessage,
    NotFound,
    RankOutOfRange,
    StateConflict,
    TooManyRequests,
    faults_in_words,
)
from hetlora.manifest import MANIFEST_NAME
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import (
    Adaptation,
    CheckIn,
    CheckInAnswer,
    Failure,
    Offer,
    Plan,
    Receipt,
    Report,
    StartRequest,
    TaskKind,
    TrainingSettings,
)
from hetlora.messages.evaluation import EvaluationReport
from hetlora.messages.masking import MASK
from hetlora.messages.rollouts import ADOPT, AdoptionReport
from hetlora.partial import expand
from hetlora.sent_parts import at_precision
from hetlora.states import AssignmentState
from hetlora.tensors import adapter_to_bytes
from hetlora.testing.door import RETRY_SECONDS, Door
from hetlora.testing.fake_cohort import FakeCohort
from hetlora.testing.loopback import LoopbackServer, Reply, Request, problem_reply
from hetlora.testing.objects import object_reply
from hetlora.testing.part_taker import PartTaker


class FakeService:
    """One population with one offer at a time, at `url` for as long as the block lasts.

        with FakeService(bundle) as service:
            client = EdgeClient(service.url, "fleet", folder, enrolment_token="token")

    It checks what every service checks of a request: signature, age, nonce, digest, schema. It does not check
    what a run's rule would; nor does it aggregate.

    Args:
        bundle: what its first offer is about; without one there is no work.
        training: how devices train.
        enrolment_token: what admits a device.
        clock: Unix seconds, against which the age of signatures is taken.

    Attributes:
        door: who may ask: `door.state` is the state of its devices, of which pending ones wait and suspended
            ones are refused; `door.keys` has the public key in force by device id.
        retry_after_seconds: when devices are told to come back.
        script: taken one a request, before it is looked at: an error is told as a problem document, a `Reply`
            is sent as it is, `CUT` breaks the connection off, None lets the request pass.
        offer: what a check-in is offered; None once it was handed in or given back.
        requests: method and path of each request; what came with them is in `check_ins`, `starts`, `bodies`
            (updates as they travelled), `updates` (what they hold), `reports`, `evaluations` (reports of
            them), `adoptions` (reports of versions that were rolled out) and `failures`.
        objects: what may be fetched, by SHA-256.
        cohort: the others of a round with masks, where the offer has `masking`.
    """

    def __init__(
        self,
        bundle: Bundle | None = None,
        *,
        training: TrainingSettings | None = None,
        enrolment_token: str = "token",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.door = Door(enrolment_token, clock)
        self.retry_after_seconds = RETRY_SECONDS
        self.script: list[HetloraError | Reply | None] = []
        self.offer: Offer | None = None
        self.objects: dict[str, bytes | Path] = {}
        self.requests: list[str] = []
        self.check_ins: list[CheckIn] = []
        self.starts: list[StartRequest] = []
        self.bodies: list[bytes] = []
        self.updates: list[Adapter] = []
        self.reports: list[Report] = []
        self.evaluations: list[EvaluationReport] = []
        self.adoptions: list[AdoptionReport] = []
        self.failures: list[Failure] = []
        self.cohort: FakeCohort | None = None
        self._parts = PartTaker()
        self._server = LoopbackServer(self.answer)
        if bundle is not None:
            self.offer_work(bundle, training)

    @property
    def url(self) -> str:
        """Where it listens, within the block."""
        return self._server.url

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    def offer_work(
        self, bundle: Bundle, training: TrainingSettings | None = None, *, kind: TaskKind = "train"
    ) -> None:
        """Offer a bundle to whoever checks in next, at every rank that it has.

        With the kind "evaluate", to whoever holds examples out; with "adopt", to whoever can.
        """
        self.objects |= {entry.sha256: bundle.path(name) for name, entry in bundle.manifest.files.items()}
        manifest = bundle.path(MANIFEST_NAME)
        self.objects[bundle.digest] = manifest
        spec = bundle.manifest.adapter
        self.global_adapter = initial_adapter(spec, spec.max_rank, np.random.default_rng(0))
        self.received = self.global_adapter
        self.offer = Offer(
            kind=kind,
            assignment_id=f"assignment-{self._handed_in() + len(self.failures) + 1}",
            run_id="run-1",
            round_index=len(self.reports) if kind == "train" else max(0, len(self.reports) - 1),
            bundle=ObjectRef(sha256=bundle.digest, size_bytes=manifest.stat().st_size),
            min_rank=1,
            max_rank=spec.max_rank,
            round_seconds=600.0,
            training=training or TrainingSettings(steps=3, max_tokens=min(64, bundle.manifest.max_tokens)),
            lease_expires_at=datetime.fromtimestamp(self.door.clock(), UTC) + timedelta(hours=1),
        )

    def answer(self, request: Request) -> Reply:
        """The answer to a request, of a script or of the service."""
        self.requests.append(f"{request.method} {request.path}")
        scripted = self.script.pop(0) if self.script else None
        try:
            if isinstance(scripted, HetloraError):
                raise scripted
            return self._route(request) if scripted is None else scripted
        except ValidationError as error:
            faults = faults_in_words(error.errors())
            return _problem(MalformedMessage("message does not fit its schema", got=faults))
        except HetloraError as error:
            return _problem(error)

    def _route(self, request: Request) -> Reply:
        path = request.path.removeprefix("/device/v1")
        if path == "/devices":
            return _json(self.door.enrol(request), 201)
        if path == "/devices:rotate-key":
            return _json(self.door.rotate_key(request))
        self.door.identify(request)
        if path.startswith("/uploads/"):
            return self._take_part(request, path.removeprefix("/uploads/"))
        if path.startswith("/objects/"):
            sha256 = path.removeprefix("/objects/")
            return object_reply(sha256, self.objects.get(sha256), request.headers.get("range", ""))
        answers = {"/check-ins": self._check_in}
        if self.offer is not None:
            if path == f"/assignments/{self.offer.assignment_id}/uploads":
                return self._parts.begin(request, self.offer.lease_expires_at)
            answers |= self._answers(self.offer)
        if path.startswith("/assignments/") and path.endswith(":mask"):  # also after its update was taken
            answers[path] = self._mask
        if path not in answers:
            raise NotFound("no such path, or no such assignment", got=path)
        return answers[path](request.body)

    def _answers(self, offer: Offer) -> dict[str, Callable[[bytes], Reply]]:
        if offer.kind == "evaluate":
            work = f"/evaluations/{offer.assignment_id}"
            return {
                f"{work}:start": self._start,
                f"{work}:submit": self._take_evaluation,
                f"{work}:fail": self._fail,
            }
        if offer.kind == "adopt":
            work = f"/adoptions/{offer.assignment_id}"
            return {
                f"{work}:start": self._start,
                f"{work}:submit": self._take_adoption,
                f"{work}:fail": self._fail,
            }
        work = f"/assignments/{offer.assignment_id}"
        return {
            f"{work}:start": self._start,
            f"{work}/update": self._update,
            f"{work}:submit": self._submit,
            f"{work}:fail": self._fail,
        }

    def _mask(self, body: bytes) -> Reply:
        if self.cohort is None:
            raise NotFound("this run has no masks")
        return _json(self.cohort.answer(body))

    def _check_in(self, body: bytes) -> Reply:
        told = CheckIn.model_validate_json(body)
        self.check_ins.append(told)
        if self.offer is None or not _may_have(self.offer, told):
            return _json(
                CheckInAnswer(
                    offer=None, retry_after_seconds=self.retry_after_seconds, reason="no run is active"
                )
            )
        return _json(CheckInAnswer(offer=self.offer, retry_after_seconds=0, reason="offer"))

    def _start(self, body: bytes) -> Reply:
        assert self.offer is not None
        request = StartRequest.model_validate_json(body)
        rank = request.rank
        if not self.offer.min_rank <= rank <= self.offer.max_rank:
            raise RankOutOfRange("rank outside the offer", got=rank)
        if request.variant not in (None, *(variant.sha256 for variant in self.offer.variants)):
            raise NotFound("the run has no such variant", got=request.variant)
        self.starts.append(request)
        return _json(self._plan(self.offer, rank))

    def _plan(self, offer: Offer, rank: int) -> Plan:
        self.received = truncate(self.global_adapter, rank)
        return Plan(
            assignment_id=offer.assignment_id,
            rank=rank,
            adapter=self.put(adapter_to_bytes(self.received)),
            seed=len(self.reports),
            lease_expires_at=offer.lease_expires_at,
            adaptation=_asked(offer),
        )

    def put(self, data: bytes) -> ObjectRef:
        """Have bytes among the objects."""
        self.objects[sha256_of(data)] = data
        return ObjectRef(sha256=sha256_of(data), size_bytes=len(data))

    def _read(self, update: bytes) -> Adapter:
        assert self.offer is not None
        return expand(update, self.global_adapter.spec, _asked(self.offer), self.received)

    def _update(self, body: bytes) -> Reply:
        if self.cohort is not None:
            self.cohort.take(body)
        else:
            self.updates.append(self._read(body))
        self.bodies.append(body)
        return _json(ObjectRef(sha256=sha256_of(body), size_bytes=len(body)))

    def _take_part(self, request: Request, sha256: str) -> Reply:
        reply = self._parts.take(request, sha256)
        update = self._parts.completed(sha256)
        if update is not None:
            self._update(update)
        return reply

    def _submit(self, body: bytes) -> Reply:
        report = Report.model_validate_json(body)
        if not self.bodies:
            raise StateConflict("no update was uploaded")
        if report.update.sha256 != sha256_of(self.bodies[-1]):
            raise DigestMismatch("the report is about another update", got=report.update.sha256)
        self.reports.append(report)
        if self.cohort is not None:
            self.cohort.is_submitted = True
        return _json(self._receipt(AssignmentState.ACCEPTED, "the update is in the round"))

    def _take_evaluation(self, body: bytes) -> Reply:
        self.evaluations.append(EvaluationReport.model_validate_json(body))
        return _json(self._receipt(AssignmentState.ACCEPTED, "the report is in the evaluation"))

    def _take_adoption(self, body: bytes) -> Reply:
        report = AdoptionReport.model_validate_json(body)
        self.adoptions.append(report)
        return _json(self._receipt(AssignmentState.ACCEPTED, f"{report.outcome}: {report.reason}"))

    def _handed_in(self) -> int:
        return len(self.reports) + len(self.evaluations) + len(self.adoptions)

    def _fail(self, body: bytes) -> Reply:
        failure = Failure.model_validate_json(body)
        self.failures.append(failure)
        return _json(self._receipt(AssignmentState.FAILED, f"{failure.code}: {failure.message}"))

    def _receipt(self, state: AssignmentState, reason: str) -> Receipt:
        assert self.offer is not None
        assignment_id, self.offer = self.offer.assignment_id, None
        self._parts = PartTaker()
        return Receipt(
            assignment_id=assignment_id,
            state=state,
            reason=reason,
            retry_after_seconds=self.retry_after_seconds,
        )


def _may_have(offer: Offer, told: CheckIn) -> bool:
    match offer.kind:
        case "train":
            return offer.masking is None or MASK in told.abilities
        case "evaluate":
            return told.held_out_count > 0
        case "adopt":
            return ADOPT in told.abilities


def _asked(offer: Offer) -> Adaptation:
    """Whole adapters, in the precision that the offer tells."""
    return at_precision(Adaptation(), offer.training.upload_precision, same_coordinates=True)


def _json(message: BaseModel, status: int = 200) -> Reply:
    return Reply(status, message.model_dump_json().encode())


def _problem(error: HetloraError) -> Reply:
    headers = {}
    if isinstance(error, TooManyRequests) and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    elif error.status == 503:
        headers["Retry-After"] = "2"
    return problem_reply(error, headers)
