"""A TCP proxy before a server, that slows what it carries down or lets nobody through."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final

PIECE_BYTES: Final = 16 * 1024


class Gate:
    """Carries what comes to `port` on to a port of the loopback address, from threads of its own.

    While it is shut every connection is cut, those that stand too. Each piece of up to 16 KiB, either way,
    waits for `delay_seconds`.
    """

    def __init__(self, target: int) -> None:
        self.delay_seconds = 0.0
        self._target = target
        self._shut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._changing = threading.Lock()
        self._serving = threading.Thread(target=self._serve)

    def shut(self) -> None:
        """Cut what stands, and whatever comes until it is opened."""
        with self._changing:
            self._shut = True
            for end in self._open:
                _cut_off(end)
            self._open.clear()

    def open(self) -> None:
        """Let everybody through."""
        self._shut = False

    def _serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                self._let_in(client)

    def _let_in(self, client: socket.socket) -> None:
        with self._changing:
            if self._shut:
                _cut_off(client)
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _cut_off(client)
                return
            self._open |= {client, server}
        for ends in ((client, server), (server, client)):
            threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, drain: socket.socket) -> None:
        with suppress(OSError):  # cut off, by this gate or by whoever is at the other end
            while piece := source.recv(PIECE_BYTES):
                time.sleep(self.delay_seconds)
                drain.sendall(piece)
        with self._changing:
            for end in (source, drain):
                self._open.discard(end)
                _cut_off(end)

    def __enter__(self) -> Gate:
        self._serving.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _cut_off(self._listener)
        self._serving.join()
        self.shut()


def _cut_off(end: socket.socket) -> None:
    """Close at once, also for a thread that waits for it; again does nothing."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
