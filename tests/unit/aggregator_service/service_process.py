"""The service as a process of its own, to be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

SERVE = """
import sys
from pathlib import Path
from aggregator_service.server import serve
from aggregator_service.settings import Settings
settings = Settings(data_dir=Path(sys.argv[1]), port=0)
serve(settings, on_listening=lambda url: print(url, flush=True))
"""


@contextmanager
def process(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    command = [sys.executable, "-c", SERVE, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            with httpx.Client(base_url=running.stdout.readline().strip()) as client:
                wait_until_ready(client)
                yield running, client
        finally:
            running.kill()


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 20
    while client.get("/internal/v1/ready").status_code != 200:
        assert time.monotonic() < deadline


def now() -> datetime:
    return datetime.now(UTC)
