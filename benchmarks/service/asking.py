"""How the requests of a simulated device travel: until they are answered, and through the faults armed."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from benchmarks.service.board import Board
from benchmarks.service.device import Asked
from benchmarks.service.faults import Fault
from benchmarks.service.ledger import Ledger
from benchmarks.service.wire import Answer, Connection, ConnectionBroken, Key, Request
from hetlora.errors import ServiceUnreachable
from hetlora.messages.device import Offer
from hetlora.states import AssignmentState

STUCK_SECONDS: Final = 120.0
WAIT_SECONDS: Final = 0.1
# Answers that mean "not now" or "not here": a replica whose clock is off takes everyone's for wrong.
PASSING: Final = frozenset({401, 429})
# Not a check-in: its second answer tells what is left of the lease.
ANSWERED_ALIKE: Final = frozenset({"start", "upload", "submit", "evaluate", "report"})
REPORTED: Final = frozenset({"submit", "report"})
IMPOSSIBLE: Final[tuple[dict[str, object], ...]] = (
    {"example_count": 0},
    {"correct_count": 50},  # of at most 49
    {"correct_count": None},  # of a classifier
    {"loss": -1.0},
    {"loss": 1e7},
    {"loss": math.nan},
)


class Forgotten(Exception):
    """The device lost what it knew, in the middle of its work."""


@dataclass(frozen=True, slots=True)
class Old:
    """A request that was answered for good, as it travelled."""

    request: Request
    signed: bytes
    at: float


@dataclass
class FaultyAsking:
    """The `Ask` of one device: asks one replica after the other until it is answered for good.

    Each try is signed anew. A fault comes before the request that it befalls, which is then sent whole: so a
    device always comes on, and what the fault left behind is what the service must bear.
    """

    key: Key
    ports: Sequence[int]
    board: Board
    ledger: Ledger
    lease_seconds: float
    _old: deque[Old] = field(default_factory=lambda: deque(maxlen=20))

    def __post_init__(self) -> None:
        self._connections = [Connection(port) for port in self.ports]
        self._turns = itertools.cycle(range(len(self.ports)))

    async def __call__(self, asked: Asked) -> Answer:
        """See `Ask`.

        Raises:
            ServiceUnreachable: no answer for `STUCK_SECONDS`.
            Forgotten: a fault had the device forget its work.
        """
        armed = self.board.take(asked.step)
        if armed is not None:
            try:
                await self._befall(armed.fault, asked)
            finally:
                armed.done.set()
        deadline = time.monotonic() + STUCK_SECONDS
        while time.monotonic() < deadline:
            signed = asked.request.signed(self.key, time.time())
            answer = await self._sent(next(self._turns), signed)
            if answer is not None and answer.status < 500 and answer.status not in PASSING:
                self._old.append(Old(asked.request, signed, time.monotonic()))
                return answer
            await asyncio.sleep(WAIT_SECONDS)
        raise ServiceUnreachable(
            f"no answer to {asked.step}", got=f"nothing of use for {STUCK_SECONDS:.0f} s"
        )

    def close(self) -> None:
        """Cut every connection."""
        for connection in self._connections:
            connection.close()

    async def _sent(self, replica: int, signed: bytes) -> Answer | None:
        """An answer of a replica, if one comes; counted either way."""
        try:
            answer = await self._connections[replica].exchange(signed)
        except ConnectionBroken:
            self.ledger.answers["none"] += 1
            return None
        self.ledger.answers[str(answer.status)] += 1
        return answer

    async def _befall(self, fault: Fault, asked: Asked) -> None:
        request = asked.request
        signed = request.signed(self.key, time.time())
        match fault.kind:
            case "cut_before" | "cut_while" | "cut_after":
                share = {"cut_before": 0.0, "cut_while": fault.amount, "cut_after": 1.0}[fault.kind]
                await self._cut(fault.replica, signed[: math.ceil(share * len(signed))])
            case "same_twice":
                answers = await self._at_once(signed, signed)
                if sum(answer is not None and answer.succeeded for answer in answers) == 2:
                    self._violated(asked, "the same signed bytes were taken twice")
            case "asked_twice":
                await self._asked_twice(asked)
            case "replayed":
                await self._replayed(asked, fault.amount)
            case "asked_again":
                if self._old:
                    again = self._old[int(fault.amount * len(self._old))].request
                    await self._sent(fault.replica, again.signed(self.key, time.time()))
            case "late":
                await asyncio.sleep(_seconds_left(asked.offer, self.lease_seconds) + 0.2)
            case "forgotten":
                raise Forgotten
            case "forged":
                other = Key(self.key.seed + 1, self.key.number)
                await self._refused(asked, fault, _signed_by(other, self.key, request))
            case _:
                claimed, spoilt = _spoilt(fault, request)
                await self._refused(asked, fault, spoilt.signed(self.key, time.time(), claimed))

    async def _cut(self, replica: int, data: bytes) -> None:
        """Send bytes on a connection of their own, and cut it."""
        connection = Connection(self.ports[replica])
        try:
            await connection.send(data)
            await asyncio.sleep(0.005)  # long enough for the service to begin with it
        except OSError:  # nobody listens just now
            pass
        finally:
            connection.close()

    async def _at_once(self, *signed: bytes) -> list[Answer | None]:
        """The answers to requests that are sent at once, each to another replica if there are several."""

        async def one(port: int, data: bytes) -> Answer | None:
            connection = Connection(port)
            try:
                return await connection.exchange(data)
            except ConnectionBroken:
                return None
            finally:
                connection.close()

        ports = itertools.cycle(self.ports)
        return list(await asyncio.gather(*(one(next(ports), data) for data in signed)))

    async def _asked_twice(self, asked: Asked) -> None:
        both = await self._at_once(*(asked.request.signed(self.key, time.time()) for _ in range(2)))
        bodies = {answer.body for answer in both if answer is not None and answer.succeeded}
        if asked.step in ANSWERED_ALIKE and len(bodies) > 1:
            self._violated(asked, "one request was answered in two ways")

    async def _replayed(self, asked: Asked, amount: float) -> None:
        old = [one for one in self._old if self.board.may_replay(one.at)]
        if not old:
            return
        one = old[int(amount * len(old))]
        answer = await self._sent(next(self._turns), one.signed)
        # Looked at again: a clock may have been put wrong meanwhile, or the database killed.
        if answer is not None and answer.succeeded and self.board.may_replay(one.at):
            self._violated(asked, f"a replayed {one.request.method} {one.request.path} was taken")

    async def _refused(self, asked: Asked, fault: Fault, signed: bytes) -> None:
        answer = await self._sent(fault.replica, signed)
        if answer is None or not answer.succeeded:
            return
        # Whatever is reported of an assignment that is over, its receipt is told again.
        over = asked.step in REPORTED and json.loads(answer.body)["state"] != AssignmentState.ACCEPTED
        if not over:
            self._violated(asked, f"a request that was {fault.kind} was taken")

    def _violated(self, asked: Asked, what: str) -> None:
        about = "" if asked.offer is None else f", assignment {asked.offer.assignment_id}"
        self.ledger.violations.append(f"{what} (step {asked.step}, device {self.key.device_id}{about})")


def _seconds_left(offer: Offer | None, lease_seconds: float) -> float:
    """Until a lease runs out; one that was given by a clock that is off is not waited for."""
    if offer is None:
        return 0.0
    return max(0.0, min(offer.lease_expires_at.timestamp() - time.time(), lease_seconds))


def _signed_by(signer: Key, owner: Key, request: Request) -> bytes:
    """A request in a device's name with another key's signature."""
    own = owner.device_id.encode()
    return request.signed(signer, time.time()).replace(signer.device_id.encode(), own)


def _spoilt(fault: Fault, request: Request) -> tuple[bytes | None, Request]:
    """What the digest is of, if not of what is sent; and what is sent."""
    body = request.body
    match fault.kind:
        case "flipped":
            at = int(fault.amount * len(body))
            return body, replace(request, body=body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
        case "truncated":
            return body, replace(request, body=body[: int(fault.amount * len(body))])
        case "not_finite":
            return None, replace(request, body=body[:-4] + np.float32(np.inf).tobytes())
        case "wrong_digest":
            # Also the sizes are equal: only the digest tells.
            at = body.index(b'"sha256":"') + len(b'"sha256":"')
            other = b"0" if body[at : at + 1] != b"0" else b"1"
            return None, replace(request, body=body[:at] + other + body[at + 1 :])
        case "impossible":
            changed = IMPOSSIBLE[int(fault.amount * len(IMPOSSIBLE))]
            return None, replace(request, body=json.dumps({**json.loads(body), **changed}).encode())
        case _:
            raise AssertionError(f"a request cannot be {fault.kind}")
