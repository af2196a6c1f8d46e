"""The fake service of `hetlora.testing` with a tiny bundle, and whatever a network or a rule may do to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
from fake_bundle import SPEC, adapter_of, ref_of, tiny_files, tiny_manifest

from hetlora import testing
from hetlora.adapter import Adapter
from hetlora.algebra import truncate
from hetlora.digest import sha256_of
from hetlora.errors import HetloraError
from hetlora.manifest import MANIFEST_NAME, Manifest, Task
from hetlora.messages.common import ObjectRef, problem_of
from hetlora.messages.device import (
    Adaptation,
    Offer,
    Plan,
    Receipt,
    Report,
    TrainingSettings,
)
from hetlora.partial import expand
from hetlora.plan_adapter import sent_from_bytes
from hetlora.states import AssignmentState
from hetlora.tensors import adapter_to_bytes
from hetlora.testing import Request

NOW = 1_800_000_000.0


# What a network that asks for a log-in answers in the place of the service.
PORTAL = httpx.Response(200, html="<h1>Accept our terms to go online</h1>")


class FakeService(testing.FakeService):
    """One assignment of a tiny bundle, without a socket, with faults of the network and plans of every rule.

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
        super().__init__(clock=lambda: NOW)
        self.retry_after_seconds = 7.0
        self.files = tiny_files()
        manifest = change(tiny_manifest(self.files, task)).to_json()
        self.bundle = ref_of(manifest)
        self.objects |= {sha256_of(data): data for data in (*self.files.values(), manifest)}
        self.names = {sha256_of(data): name for name, data in self.files.items()} | {
            self.bundle.sha256: MANIFEST_NAME
        }
        self.global_adapter = adapter_of(4)
        self.spec = SPEC
        self.adaptation = Adaptation()
        self.plan_adapter: bytes | None = None  # None: the global adapter, truncated
        self.frozen: bytes | None = None
        self.claimed_frozen_bytes: int | None = None
        self.offer = Offer(
            assignment_id="assignment-1",
            run_id="run-1",
            round_index=0,
            bundle=self.bundle,
            min_rank=min_rank,
            max_rank=4,
            round_seconds=600.0,
            training=training
            or TrainingSettings(
                steps=3,
                batch_size=2,
                learning_rate=0.5,
                max_tokens=8,
                pruning_decay=1.0,
                pruning_penalty=0,
                optimizer="sgd",
            ),
            lease_expires_at=datetime(2027, 1, 15, tzinfo=UTC),
        )
        self.faults: list[Exception | httpx.Response | None] = []
        self.receipts: list[AssignmentState] = []  # of the next ones, instead of what became of the work

    @property
    def http(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def fetched(self) -> list[str]:
        """Names of the objects that were asked for, in order."""
        paths = (request.split(" ")[1] for request in self.requests if "/objects/" in request)
        return [self.names.get(path.rsplit("/", 1)[1], "global adapter") for path in paths]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            self.requests.append(f"{request.method} {request.url.path}")
            if isinstance(fault, Exception):
                raise fault
            return fault
        path, _, query = request.url.raw_path.decode().partition("?")
        reply = self.answer(Request(request.method, path, query, request.headers, request.content))
        return httpx.Response(
            reply.status,
            content=pieces(reply.body),
            headers={"Content-Type": reply.content_type, **reply.headers},
        )

    def _plan(self, offer: Offer, rank: int) -> Plan:
        self.received = truncate(self.global_adapter, rank)
        data = adapter_to_bytes(self.received) if self.plan_adapter is None else self.plan_adapter
        if self.plan_adapter is not None:
            self.received = sent_from_bytes(data, self.spec).adapter
        return Plan(
            assignment_id="assignment-1",
            rank=rank,
            adapter=self.put(data),
            seed=5,
            lease_expires_at=offer.lease_expires_at,
            adaptation=self.adaptation,
            frozen=None if self.frozen is None else self._claimed(self.frozen),
        )

    def _claimed(self, data: bytes) -> ObjectRef:
        stored = self.put(data)
        return stored.model_copy(update={"size_bytes": self.claimed_frozen_bytes or stored.size_bytes})

    def _read(self, update: bytes) -> Adapter:
        return expand(update, self.spec, self.adaptation, self.received)

    def _receipt(self, state: AssignmentState, reason: str) -> Receipt:
        return receipt(self.receipts.pop(0) if self.receipts else state)  # and the offer stays


def receipt(state: AssignmentState) -> Receipt:
    return Receipt(assignment_id="assignment-1", state=state, reason="so it is", retry_after_seconds=30.0)


def report_of(update: bytes) -> Report:
    """What a device tells of three steps on two examples."""
    return Report(
        update=ref_of(update),
        rank=4,
        example_count=2,
        steps=3,
        first_loss=2.0,
        last_loss=1.0,
        training_seconds=0.5,
        peak_memory_bytes=10,
        downloaded_bytes=30,
    )


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
