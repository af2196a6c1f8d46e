"""An S3-compatible server on a socket: moto's, in a process of its own.

It speaks the protocol and keeps the objects in memory. It is no store for anything but tests.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server, with a bucket named `hetlora`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            _wait(url, running)
            httpx.put(f"{url}/hetlora").raise_for_status()
            yield url
        finally:
            running.kill()


def environment(url: str) -> dict[str, str]:
    """The variables by which S3's tools, and obstore, find a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
    }


def _wait(url: str, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{url}/moto-api/")
            return
        except httpx.TransportError:
            assert running.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
