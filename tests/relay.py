"""What stands between a device and its service in tests: takes connections, and carries bytes both ways."""

from __future__ import annotations

import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx

PIECE_BYTES = 4096


def address_of(url: httpx.URL | str) -> tuple[str, int]:
    """Host and port of a service, as sockets take them."""
    url = httpx.URL(url)
    assert url.port is not None
    return url.host, url.port


def cut_off(opened: socket.socket) -> None:
    """Close at once, with a reset; again does nothing."""
    with suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()


class Relay(ABC):
    """Listens on a port of its own within its `with` block; a thread for each connection."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cut_off(self._listener)
        self._threads[0].join()  # which takes no connection any more
        for opened in self._open:
            cut_off(opened)
        for thread in self._threads:
            thread.join()

    @abstractmethod
    def handle(self, device: socket.socket) -> None:
        """One connection, until it ends; errors of sockets end it."""

    def connect(self, target: tuple[str, int]) -> socket.socket:
        """A connection to what stands behind, which ends with the block."""
        opened = socket.create_connection(target)
        self._open.append(opened)
        return opened

    def carry_both(
        self,
        device: socket.socket,
        service: socket.socket,
        up: Callable[[bytes], bytes | None] = lambda piece: piece,
        down: Callable[[bytes], bytes | None] = lambda piece: piece,
    ) -> None:
        """Carry what each says to the other, as `up` and `down` make it; None of them cuts both off."""
        back = self._start(lambda: carry(service, device, down))
        carry(device, service, up)
        back.join()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                device, _ = self._listener.accept()
                self._open.append(device)
                self.connections += 1
                self._start(lambda device=device: self._handle(device))

    def _handle(self, device: socket.socket) -> None:
        with suppress(OSError):
            self.handle(device)
        cut_off(device)

    def _start(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread


def carry(source: socket.socket, drain: socket.socket, change: Callable[[bytes], bytes | None]) -> None:
    """Carry bytes from one to the other until it ends, or `change` says None; then both are cut off."""
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            changed = change(piece)
            if changed is None:
                break
            drain.sendall(changed)
    cut_off(source)
    cut_off(drain)
