"""A TCP proxy that cuts connections in the middle of what they carry, as bad lines do."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat

PIECE_BYTES = 4096


@dataclass(frozen=True)
class Cut:
    """After how many bytes, up to the service or down to the device, a connection ends."""

    up: int | None = None
    down: int | None = None


WHOLE = Cut()


@dataclass
class CuttingProxy:
    """Listens on `port`; each connection gets the next of `cuts`, and `then` once they are used up."""

    target: tuple[str, int]
    cuts: list[Cut]
    then: Cut = WHOLE
    listener: socket.socket = field(init=False)
    sent: list[int] = field(default_factory=list)  # bytes of all pieces that went up
    connections: int = 0

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self._plan = chain(self.cuts, repeat(self.then))
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                device, _ = self.listener.accept()
                service = socket.create_connection(self.target)
                self._open += [device, service]
                self.connections += 1
                cut = next(self._plan)
                for carried in ((device, service, cut.up, self.sent), (service, device, cut.down, [])):
                    threading.Thread(target=carry, args=carried, daemon=True).start()

    def close(self) -> None:
        cut_off(self.listener)
        for opened in self._open:
            cut_off(opened)


def carry(source: socket.socket, drain: socket.socket, most: int | None, carried: list[int]) -> None:
    """Carry bytes from one to the other until it ends, or `most` were carried; then both are cut off."""
    left = most
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            kept = piece if left is None else piece[:left]
            drain.sendall(kept)
            carried.append(len(kept))
            left = None if left is None else left - len(kept)
            if left == 0:
                break
    cut_off(source)
    cut_off(drain)


def cut_off(opened: socket.socket) -> None:
    """Close at once, with a reset; again does nothing."""
    with suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()


@contextmanager
def cutting(target: tuple[str, int], *cuts: Cut, then: Cut = WHOLE) -> Iterator[CuttingProxy]:
    """A proxy in front of a service, until the block ends."""
    proxy = CuttingProxy(target, [*cuts], then)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
