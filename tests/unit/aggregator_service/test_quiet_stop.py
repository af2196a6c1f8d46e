from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from service_process import process

HEAD = b"POST /device/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


def test_request_that_a_stop_breaks_off_is_told_so_and_is_no_fault_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HETLORA_SHUTDOWN_SECONDS", "1")
    with process(tmp_path) as (running, http):
        address = ("127.0.0.1", http.base_url.port or 0)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(HEAD + b"{")
            http.get("/internal/v1/health")  # the head has come, too
            running.send_signal(signal.SIGTERM)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        running.wait(10)
    told = capfd.readouterr().err
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"unavailable"' in answer
    assert "path=/device/v1/devices request=broken_off" in told
    assert "Traceback" not in told
