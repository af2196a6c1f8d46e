"""The service as a process of its own, to be killed."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

COMMAND = "from hetlora.cli.main import run_command; run_command()"


@contextmanager
def process(
    data_dir: Path, *options: str, verify: ssl.SSLContext | bool = True
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A running `hetlora serve`, killed at the end if it still runs."""
    arguments = ["serve", "--data-dir", str(data_dir), "--port", "0", "--json", *options]
    command = [sys.executable, "-c", COMMAND, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            url = json.loads(running.stdout.readline())["url"]
            with httpx.Client(base_url=url, verify=verify) as client:
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
