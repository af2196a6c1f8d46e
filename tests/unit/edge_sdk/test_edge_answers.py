"""Answers of anybody, over real sockets: what they may cost a device in memory and in time."""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from edge_sdk.identity.identity import new_identity
from edge_sdk.transport.answers import MAX_ANSWER_BYTES, MAX_ANSWER_SECONDS, STOPPED_ANSWER_SECONDS
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.way import Way
from hetlora.errors import ServiceUnreachable, Stopped

UNPACKED_BYTES = 64 * MAX_ANSWER_BYTES


@contextmanager
def answering(head: str, body: bytes) -> Iterator[str]:
    """The address of somebody who gives one answer."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += connection.recv(65536)
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@contextmanager
def transport_to(url: str) -> Iterator[Transport]:
    transport = Transport(url, new_identity())
    yield transport
    transport.close()


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
@pytest.mark.parametrize("encoding", ["gzip, gzip", "GZIP,gzip", "identity, gzip, gzip"])
def test_few_bytes_that_unpack_to_many_are_not_unpacked(status: str, encoding: str) -> None:
    body = gzip.compress(gzip.compress(bytes(UNPACKED_BYTES)))
    assert len(body) < 1000
    head = f"HTTP/1.1 {status}\nContent-Encoding: {encoding}\nContent-Length: {len(body)}"
    with answering(head, body) as url, transport_to(url) as transport:
        tracemalloc.start()
        try:
            with pytest.raises(ServiceUnreachable, match="expected none"):
                transport.exchange("GET", "/device/v1/x")
            assert tracemalloc.get_traced_memory()[1] < 4 * MAX_ANSWER_BYTES
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK\nContent-Encoding: Identity"])
def test_answer_as_it_was_asked_for_is_read(head: str) -> None:
    with answering(f"{head}\nContent-Length: 2", b"{}") as url, transport_to(url) as transport:
        assert transport.exchange("GET", "/device/v1/x") == b"{}"


class Dripping:
    """Answers with a byte in each second of its clock, without end; `at` is called at each."""

    def __init__(self, at: Callable[[float], object] = lambda now: None) -> None:
        self.now = 0.0
        self._at = at

    def transport(self, status: int = 200) -> Transport:
        http = httpx.MockTransport(lambda request: httpx.Response(status, content=self._bytes()))
        return Transport("http://service.test", new_identity(), Way(http=http), timer=lambda: self.now)

    def _bytes(self) -> Iterator[bytes]:
        while True:
            self.now += 1.0
            self._at(self.now)
            yield b" "


@pytest.mark.parametrize("status", [200, 403])
def test_answer_that_drips_is_not_waited_for_without_end(status: int) -> None:
    line = Dripping()
    with pytest.raises(ServiceUnreachable, match="expected all of it within 300 seconds"):
        line.transport(status).exchange("GET", "/device/v1/x")
    assert line.now == MAX_ANSWER_SECONDS + 1


def test_answer_that_drips_ends_soon_after_the_app_asked() -> None:
    stop = threading.Event()
    line = Dripping(lambda now: now == 10 and stop.set())
    transport = line.transport()
    with transport.ended_by(stop), pytest.raises(Stopped):
        transport.exchange("GET", "/device/v1/x")
    assert line.now == 10


def test_answer_that_comes_at_once_is_heard_though_the_app_asked_for_the_end() -> None:
    stop = threading.Event()
    stop.set()
    seconds = iter([0.0, STOPPED_ANSWER_SECONDS])
    http = httpx.MockTransport(lambda request: httpx.Response(200, content=b"{}"))
    transport = Transport("http://service.test", new_identity(), Way(http=http), timer=lambda: next(seconds))
    with transport.ended_by(stop):
        assert transport.exchange("GET", "/device/v1/x") == b"{}"
