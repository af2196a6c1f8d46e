"""The gate before a bucket, with real connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from benchmarks.service.gate import PIECE_BYTES, Gate

DATA = bytes(range(256)) * (3 * PIECE_BYTES // 256)


def echo(listener: socket.socket) -> None:
    """Send everything back to one connection after the other, until the listener is closed."""
    with suppress(OSError):
        while True:
            with listener.accept()[0] as connection, suppress(OSError):
                while piece := connection.recv(PIECE_BYTES):
                    connection.sendall(piece)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate before a server that sends everything back."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=echo, args=(listener,))
    thread.start()
    with Gate(listener.getsockname()[1]) as gate:
        yield gate
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def connected(gate: Gate) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gate.port))


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What comes back until there is as much as was sent, or until the connection ends."""
    sending = threading.Thread(target=connection.sendall, args=(data,))
    sending.start()
    found = b""
    while len(found) < len(data) and (piece := connection.recv(PIECE_BYTES)):
        found += piece
    sending.join()
    return found


@pytest.mark.parametrize("delay_seconds", [0.0, 0.01])
def test_open_gate_carries_everything_both_ways_slow_or_not(gate: Gate, delay_seconds: float) -> None:
    gate.delay_seconds = delay_seconds
    with connected(gate) as connection:
        assert echoed(connection, DATA) == DATA


def is_cut(connection: socket.socket) -> bool:
    """Whether a connection ends, in one of its two ways, before anything comes."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_shut_gate_cuts_who_is_there_and_who_comes_and_lets_everybody_in_again(gate: Gate) -> None:
    with connected(gate) as standing:
        assert echoed(standing, b"before") == b"before"
        gate.shut()
        assert is_cut(standing)
    with connected(gate) as coming:
        assert is_cut(coming)
    gate.open()
    with connected(gate) as coming:
        assert echoed(coming, b"after") == b"after"
