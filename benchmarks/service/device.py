"""A simulated device: real signatures, real bytes, no training."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from benchmarks.service.sent import (
    CAPABILITIES,
    TUS,
    drawing,
    moved,
    part_headers,
    posted,
    promise,
    report_of,
    scored,
)
from benchmarks.service.wire import Answer, Key, Request
from hetlora.digest import sha256_of
from hetlora.errors import DigestMismatch, ServiceFailed
from hetlora.messages.common import PROTOCOL_VERSION
from hetlora.messages.device import CheckIn, CheckInAnswer, Failure, Offer, Plan, Receipt, StartRequest
from hetlora.messages.evaluation import EvaluationReport

Training = Literal["check_in", "start", "download", "upload", "begin", "part", "submit", "give_back"]
Evaluating = Literal["evaluate", "report", "report_again"]
Step = Training | Evaluating
STEPS: Final[tuple[Step, ...]] = (*get_args(Training), *get_args(Evaluating))
GIVEN_BACK: Final = 0.1  # of the evaluations that a device is offered
REPORTED_AGAIN: Final = 0.3


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
    report: EvaluationReport | None = None


class NotPossible(Exception):
    """The service says that this assignment is over, or otherwise than the device thinks."""


@dataclass(slots=True)
class Device:
    """Checks in, works and hands in what its random numbers make of the adapter that it was sent.

    With `parts` above 1 its updates go up in so many parts, by tus, else in one. With held-out examples it
    evaluates, too: some offers it gives back, and some reports another follows, which must change nothing.
    """

    key: Key
    population: str
    ask: Ask
    parts: int = 1
    held_out_count: int = 0

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
            held_out_count=self.held_out_count,
        )
        answer = await self.ask(Asked("check_in", posted("/check-ins", message)))
        told = CheckInAnswer.model_validate_json(_wanted(answer).body)
        if told.offer is None:
            return Visit(None, told.retry_after_seconds)
        work = self._evaluate if told.offer.kind == "evaluate" else self._train
        try:
            return await work(told.offer)
        except NotPossible as error:
            return await self._give_back(
                told.offer, Failure(code="state_conflict", message=str(error)[:1000])
            )

    async def _train(self, offer: Offer) -> Visit:
        path = _path(offer)
        rank, adapter = await self._start("start", offer)
        update = moved(adapter, offer.assignment_id)
        await self._upload(update, path, offer)
        report = report_of(update, rank, 1 + self.key.number % 5)
        handed_in = await self._ask("submit", posted(f"{path}:submit", report), offer)
        receipt = Receipt.model_validate_json(handed_in.body)
        return Visit(receipt, receipt.retry_after_seconds, update_sha256=sha256_of(update))

    async def _evaluate(self, offer: Offer) -> Visit:
        if self.held_out_count == 0:
            raise ServiceFailed("a device without held-out examples is to evaluate", got=offer.assignment_id)
        await self._start("evaluate", offer)
        manner = drawing(f"manner of {offer.assignment_id}").random()
        if manner < GIVEN_BACK:
            return await self._give_back(offer, Failure(code="cancelled", message="the app is in use"))
        report = scored(offer.assignment_id)
        receipt = await self._report("report", report, offer)
        if manner > 1 - REPORTED_AGAIN:
            other = report.model_copy(update={"loss": report.loss + 1})
            again = await self._report("report_again", other, offer)
            if (again.state, again.reason) != (receipt.state, receipt.reason):
                raise ServiceFailed("a second report", got=again.reason, expected=receipt.reason)
        return Visit(receipt, receipt.retry_after_seconds, report=report)

    async def _report(self, step: Step, report: EvaluationReport, offer: Offer) -> Receipt:
        answer = await self._ask(step, posted(f"{_path(offer)}:submit", report), offer)
        return Receipt.model_validate_json(answer.body)

    async def _start(self, step: Step, offer: Offer) -> tuple[int, bytes]:
        """Take an offer; answers the rank, and the adapter that came."""
        rank = offer.min_rank + self.key.number % (offer.max_rank - offer.min_rank + 1)
        started = await self._ask(step, posted(f"{_path(offer)}:start", StartRequest(rank=rank)), offer)
        plan = Plan.model_validate_json(started.body)
        adapter = (await self._ask("download", Request("GET", f"/objects/{plan.adapter.sha256}"), offer)).body
        if sha256_of(adapter) != plan.adapter.sha256:
            raise DigestMismatch("adapter of a plan", got=sha256_of(adapter), expected=plan.adapter.sha256)
        return rank, adapter

    async def _give_back(self, offer: Offer, failure: Failure) -> Visit:
        answer = await self.ask(Asked("give_back", posted(f"{_path(offer)}:fail", failure), offer))
        receipt = Receipt.model_validate_json(_wanted(answer).body)
        return Visit(receipt, receipt.retry_after_seconds)

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
        if answer.status == 409 and answer.code == "offset_mismatch":  # it came, but not its answer
            answer = await self.ask(Asked("begin", Request("HEAD", upload, headers=TUS), offer))
        if answer.status in (404, 410):
            return None
        if answer.status == 409:
            raise NotPossible(answer.code)
        return int(_wanted(answer).headers["upload-offset"])

    async def _ask(self, step: Step, request: Request, offer: Offer) -> Answer:
        """An answer about an assignment, which may be over by now.

        Raises:
            NotPossible: it is.
        """
        answer = await self.ask(Asked(step, request, offer))
        if answer.status == 409:
            raise NotPossible(answer.code)
        return _wanted(answer)


def _path(offer: Offer) -> str:
    """Below /device/v1."""
    kind = "evaluations" if offer.kind == "evaluate" else "assignments"
    return f"/{kind}/{offer.assignment_id}"


def _wanted(answer: Answer) -> Answer:
    if not answer.succeeded:
        raise ServiceFailed("a simulated device is refused", got=f"{answer.status} {answer.code}")
    return answer
