"""An S3-compatible server of one's own, moto's in a process of its own, for tests and benchmarks.

It speaks the protocol and keeps the objects in memory: they end with it. It is no store for anything else.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

import httpx

from benchmarks.processes import Process, free_port
from hetlora.errors import ServiceUnreachable

START_SECONDS: Final = 30.0
BUCKET: Final = "hetlora"
REGION: Final = "us-east-1"
KEY: Final = "tests"  # any key opens it


class S3Server(Process):
    """A server with a bucket named `hetlora`, which both end with the block."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-p", str(self.port)]
        super().__init__(command, Path(os.devnull))

    def start(self) -> None:
        """Start the server, and wait until it has its bucket.

        Raises:
            ServiceUnreachable: it does not answer, or it ended.
        """
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                raise ServiceUnreachable("the S3 server does not start", got=f"running: {self.running}")
            time.sleep(0.05)
        httpx.put(f"{self.url}/{BUCKET}").raise_for_status()

    def _answers(self) -> bool:
        try:
            httpx.get(f"{self.url}/moto-api/")
        except httpx.TransportError:
            return False
        return True


def environment(url: str) -> dict[str, str]:
    """The variables by which S3's tools, and obstore, find a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
    }
