from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from service_process import process, wait_until_ready

DESCRIPTORS = 60


def test_log_tells_that_connections_are_refused_for_want_of_descriptors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with process(tmp_path) as (running, http):
        _, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
        told, deadline = "", time.monotonic() + 20
        with ExitStack() as opened:
            for _ in range(DESCRIPTORS):  # in the backlog, where there is no place for them
                address = ("127.0.0.1", http.base_url.port or 0)
                opened.enter_context(socket.create_connection(address, timeout=10))
            while "connection=refused error=Too many open files" not in told:
                assert time.monotonic() < deadline, told
                time.sleep(0.05)
                told += capfd.readouterr().err
        assert told.count("\n") < 100
        assert "Traceback" not in told
        wait_until_ready(http)
