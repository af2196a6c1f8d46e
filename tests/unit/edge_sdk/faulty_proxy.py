"""A line on which all goes wrong that does between a device and its service, and hours of it."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import httpx
from device_clock import Clock
from relay import Relay, cut_off

PAGE: Final = b"<html><h1>Accept our terms to go online</h1></html>"
PORTALS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + PAGE,
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 511 Network Authentication Required\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE),
)

Kind = Literal[
    "refused",  # reset as soon as it is there
    "silent",  # taken, and never answered
    "cut up",  # reset after so many bytes went up
    "cut down",
    "ended down",  # closed in good order after so many bytes, as if that were all
    "silent down",  # after so many bytes nothing more comes
    "slow",
    "twice",  # what goes up is sent once more, on a connection of its own
    "portal",  # something else answers
    "garbage",
    "flipped up",  # one bit of the byte at that place
    "flipped down",
]
WITHOUT_FLIPS: Final[tuple[Kind, ...]] = (
    *("refused", "silent", "cut up", "cut down", "ended down", "silent down"),
    *("slow", "twice", "portal", "garbage"),
)
# Two requests or so; a tenth of the largest object.
MOST_BYTES_UP: Final = 2_000
MOST_BYTES_DOWN: Final = 10_000
ALL_FAULTS: Final[tuple[Kind, ...]] = (*WITHOUT_FLIPS, "flipped up", "flipped down")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection, after so many bytes of it."""

    kind: Kind
    after_bytes: int = 0


def drawn_faults(chance: random.Random, kinds: tuple[Kind, ...], share: float) -> Iterator[Fault]:
    """Faults without end: a `share` of all connections has one of any kind, and none lasts for long.

    As many end within their first hundred bytes down as between the hundredth and the last.
    """
    while True:
        kind = chance.choice(kinds) if chance.random() < share else "cut down"
        most = MOST_BYTES_UP if kind.endswith("up") else MOST_BYTES_DOWN
        yield Fault(kind, int(most ** chance.random()))


class FaultyProxy(Relay):
    """Gives each connection the next of `faults`; while `is_away` says so there is none.

    Attributes:
        met: the kinds of faults that connections met.
        down_bytes: what the service sent, and was carried.
    """

    def __init__(
        self,
        target: tuple[str, int],
        faults: Iterator[Fault],
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._target, self._faults, self._is_away = target, faults, is_away
        self._next = threading.Lock()
        self.met: set[Kind] = set()
        self.down_bytes = 0

    def handle(self, device: socket.socket) -> None:
        if self._is_away():
            return
        with self._next:
            fault = next(self._faults)
        self.met.add(fault.kind)
        match fault.kind:
            case "refused":
                return
            case "silent":
                wait_for_end(device)
            case "portal":
                answer(device, PORTALS[fault.after_bytes % len(PORTALS)])
            case "garbage":
                answer(device, random.Random(fault.after_bytes).randbytes(500))
            case _:
                self._carry(device, fault)

    def _carry(self, device: socket.socket, fault: Fault) -> None:
        gone_up = bytearray()
        end = _End(device, fault)

        def up(piece: bytes) -> bytes | None:
            if self._is_away():
                return None
            changed = end.change(piece, "up", len(gone_up))
            gone_up.extend(piece)
            return changed

        came_down = 0

        def down(piece: bytes) -> bytes | None:
            nonlocal came_down
            changed = end.change(piece, "down", came_down)
            came_down += len(piece)
            self.down_bytes += len(changed or b"")
            return changed

        self.carry_both(device, self.connect(self._target), up, down)
        if fault.kind == "twice" and gone_up:
            again = self.connect(self._target)
            with suppress(OSError):
                again.sendall(gone_up)
                again.settimeout(1.0)
                again.recv(4096)
            cut_off(again)


class _End:
    """Where the bytes of one connection meet its fault."""

    def __init__(self, device: socket.socket, fault: Fault) -> None:
        self._device, self._fault = device, fault

    def change(self, piece: bytes, way: Literal["up", "down"], before: int) -> bytes | None:
        """A piece as it goes on, with what the other end is not to have cut off; None ends the connection."""
        kind, left = self._fault.kind, self._fault.after_bytes - before
        if kind == "slow":
            time.sleep(0.005)
        ends = kind.endswith(way) or kind in ("slow", "twice")
        if not ends or left >= len(piece):
            return piece
        match kind:
            case "slow" | "twice":
                return None
            case "flipped up" | "flipped down":
                return piece if left < 0 else piece[:left] + bytes([piece[left] ^ 16]) + piece[left + 1 :]
            case "cut up":
                return None
            case "cut down":
                self._send(piece[:left])
                return None
            case "ended down":
                self._send(piece[:left])
                with suppress(OSError):
                    self._device.shutdown(socket.SHUT_WR)
                    wait_for_end(self._device)
                return None
            case _:
                self._send(piece[:left])
                wait_for_end(self._device)
                return None

    def _send(self, rest: bytes) -> None:
        with suppress(OSError):
            self._device.sendall(rest)


def answer(device: socket.socket, data: bytes) -> None:
    """Answer whatever is asked first, and close in good order."""
    if device.recv(65536):
        device.sendall(data)
        device.shutdown(socket.SHUT_WR)
        wait_for_end(device)


def wait_for_end(device: socket.socket) -> None:
    """Until the device has hung up."""
    with suppress(OSError):
        while device.recv(65536):
            pass


class BadLine(httpx.HTTPTransport):
    """The device's end: names that are not found now and then, and a patience that tests can wait for."""

    def __init__(self, chance: random.Random, *, share: float, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._chance, self._share = chance, share

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._chance.random() < self._share:
            raise httpx.ConnectError("[Errno -3] Temporary failure in name resolution")
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), 0.4)
        return super().handle_request(request)


class Waiting(threading.Event):
    """Waits for a device by moving its clock; set as soon as `is_over` says so."""

    def __init__(self, clock: Clock, is_over: Callable[[], bool]) -> None:
        super().__init__()
        self._clock, self._is_over = clock, is_over
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        self._clock.now += timeout or 0.0
        time.sleep(0.01)  # for the service's own threads, which have another clock
        if self._is_over():
            self.set()
        return self.is_set()
