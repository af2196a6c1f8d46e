"""A simulated device: real signatures, real bytes, no training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from benchmarks.service.wire import Answer, Key, Request
from hetlora import tus
from hetlora.digest import sha256_of
from hetlora.errors import DigestMismatch, ServiceFailed
from hetlora.messages.common import PROTOCOL_VERSION, ObjectRef
from hetlora.messages.device import (
    CapabilityReport,
    CheckIn,
    CheckInAnswer,
    Failure,
    Offer,
    Plan,
    Receipt,
    Report,
    StartRequest,
)

Step = Literal["check_in", "start", "download", "upload", "begin", "part", "submit", "give_back"]
STEPS: Final[tuple[Step, ...]] = get_args(Step)
TUS: Final = (("Tus-Resumable", tus.VERSION),)
GIGA: Final = 10**9
CAPABILITIES: Final = CapabilityReport(
    source="given",
    cores=2,
    memory_total_bytes=8 * GIGA,
    memory_available_bytes=4 * GIGA,
    matmul_flops_per_second=1e9,
    disk_free_bytes=GIGA,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a device in the course of its visit; `offer` is what it is about, if anything."""

    step: Step
    request: Request
    offer: Offer | None = None


# Sends a request, as often as it takes, until the service has answered it for good: success or refusal.
Ask = Callable[[Asked], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of one visit: a receipt for work done, or nothing to do; and when to come back."""

    receipt: Receipt | None
    retry_after_seconds: float
    update_sha256: str | None = None


class NotPossible(Exception):
    """The service says that this assignment is over, or otherwise than the device thinks."""


@dataclass(slots=True)
class Device:
    """Checks in, works and hands in what its random numbers make of the adapter that it was sent.

    With `parts` above 1 its updates go up in so many parts, by tus, else in one.
    """

    key: Key
    population: str
    ask: Ask
    parts: int = 1

    async def visit(self) -> Visit:
        """One check-in, and the work that it brings.

        Raises:
            ServiceFailed: an answer that no service may give.
            DigestMismatch: an object that is not what the plan promised.
        """
        message = CheckIn(
            protocol_version=PROTOCOL_VERSION,
            sdk_version="simulated",
            population=self.population,
            capabilities=CAPABILITIES,
            example_count=1 + self.key.number % 5,
        )
        answer = await self.ask(Asked("check_in", _posted("/check-ins", message)))
        told = CheckInAnswer.model_validate_json(_wanted(answer).body)
        if told.offer is None:
            return Visit(None, told.retry_after_seconds)
        try:
            return await self._work(told.offer)
        except NotPossible as error:
            failure = Failure(code="state_conflict", message=str(error)[:1000])
            path = f"/assignments/{told.offer.assignment_id}:fail"
            answer = await self.ask(Asked("give_back", _posted(path, failure), told.offer))
            receipt = Receipt.model_validate_json(_wanted(answer).body)
            return Visit(receipt, receipt.retry_after_seconds)

    async def _work(self, offer: Offer) -> Visit:
        path = f"/assignments/{offer.assignment_id}"
        rank = offer.min_rank + self.key.number % (offer.max_rank - offer.min_rank + 1)
        started = await self._ask("start", _posted(f"{path}:start", StartRequest(rank=rank)), offer)
        plan = Plan.model_validate_json(started.body)
        adapter = (await self._ask("download", Request("GET", f"/objects/{plan.adapter.sha256}"), offer)).body
        if sha256_of(adapter) != plan.adapter.sha256:
            raise DigestMismatch("adapter of a plan", got=sha256_of(adapter), expected=plan.adapter.sha256)
        update = moved(adapter, offer.assignment_id)
        await self._upload(update, path, offer)
        report = _report(update, rank, 1 + self.key.number % 5)
        handed_in = await self._ask("submit", _posted(f"{path}:submit", report), offer)
        receipt = Receipt.model_validate_json(handed_in.body)
        return Visit(receipt, receipt.retry_after_seconds, sha256_of(update))

    async def _upload(self, update: bytes, path: str, offer: Offer) -> None:
        if self.parts == 1:
            await self._ask("upload", Request("PUT", f"{path}/update", update), offer)
            return
        begin = Request("POST", f"{path}/uploads", headers=promise(update))
        offset: int | None = None
        while offset != len(update):
            begun = await self._ask("begin", begin, offer)  # again: the upload that is open
            upload = begun.headers["location"].removeprefix("/device/v1")
            offset = int(begun.headers["upload-offset"])
            while offset is not None and offset < len(update):
                offset = await self._send_part(update, upload, offset, offer)

    async def _send_part(self, update: bytes, upload: str, offset: int, offer: Offer) -> int | None:
        """The next part; answers where the upload then stands, or None if it is no more."""
        part = update[offset : offset - (-len(update) // self.parts)]
        answer = await self.ask(
            Asked("part", Request("PATCH", upload, part, part_headers(part, offset)), offer)
        )
        if answer.status == 409 and code_of(answer) == "offset_mismatch":  # it came, but not its answer
            answer = await self.ask(Asked("begin", Request("HEAD", upload, headers=TUS), offer))
        if answer.status in (404, 410):
            return None
        if answer.status == 409:
            raise NotPossible(code_of(answer))
        return int(_wanted(answer).headers["upload-offset"])

    async def _ask(self, step: Step, request: Request, offer: Offer) -> Answer:
        """An answer about an assignment, which may be over by now.

        Raises:
            NotPossible: it is.
        """
        answer = await self.ask(Asked(step, request, offer))
        if answer.status == 409:
            raise NotPossible(code_of(answer))
        return _wanted(answer)


def promise(update: bytes) -> tuple[tuple[str, str], ...]:
    """The headers that begin an upload in parts."""
    length = ("Upload-Length", str(len(update)))
    return (*TUS, length, ("Upload-Metadata", tus.sha256_pair(sha256_of(update))))


def part_headers(part: bytes, offset: int) -> tuple[tuple[str, str], ...]:
    """The headers of a part."""
    kind, place = ("Content-Type", tus.PART_TYPE), ("Upload-Offset", str(offset))
    return (*TUS, kind, place, ("Upload-Checksum", tus.sha256_pair(sha256_of(part))))


def moved(adapter: bytes, name: str) -> bytes:
    """An adapter's safetensors after a small random move, the same for the same name."""
    start = 8 + int.from_bytes(adapter[:8], "little")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    numbers = np.frombuffer(adapter, np.float32, offset=start)
    return adapter[:start] + (numbers + 0.05 * rng.standard_normal(len(numbers), np.float32)).tobytes()


def code_of(answer: Answer) -> str:
    """The stable code of a refusal."""
    try:
        return str(json.loads(answer.body)["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status}"


def _wanted(answer: Answer) -> Answer:
    if not answer.succeeded:
        raise ServiceFailed("a simulated device is refused", got=f"{answer.status} {code_of(answer)}")
    return answer


def _posted(path: str, message: Any) -> Request:
    return Request("POST", path, message.model_dump_json().encode())


def _report(update: bytes, rank: int, example_count: int) -> Report:
    return Report(
        update=ObjectRef(sha256=sha256_of(update), size_bytes=len(update)),
        rank=rank,
        example_count=example_count,
        steps=1,
        first_loss=1.0,
        last_loss=0.5,
        training_seconds=0.0,
        peak_memory_bytes=0,
        downloaded_bytes=len(update),
    )
