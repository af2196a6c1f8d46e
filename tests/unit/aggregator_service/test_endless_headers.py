from __future__ import annotations

import socket
from pathlib import Path

from service_process import process

LINE = b"X-Filler: " + 1000 * b"x" + b"\r\n"


def test_headers_without_an_end_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    with process(tmp_path) as (_, http):
        address = ("127.0.0.1", http.base_url.port or 0)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"GET /internal/v1/health HTTP/1.1\r\nHost: localhost\r\n")
            sent_bytes = 0
            answer = b""
            while not answer and sent_bytes < 4_000_000:
                try:
                    connection.sendall(LINE)
                    sent_bytes += len(LINE)
                    connection.settimeout(0.001)
                    answer = connection.recv(1000)
                except TimeoutError:
                    connection.settimeout(10)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert sent_bytes < 200_000
