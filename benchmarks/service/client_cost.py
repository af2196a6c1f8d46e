"""What a request costs whoever asks: our connection beside httpx, in processor time of the asking process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx

from benchmarks.service.stage import staged
from benchmarks.service.tiny_bundle import tiny_spec
from benchmarks.service.wire import Connection

REQUESTS: Final = 1000
PATH: Final = "/internal/v1/health"


async def client_cpu_ms(folder: Path) -> dict[str, float]:
    """Milliseconds of processor time a request, one after another on one connection, by client.

    Args:
        folder: holds the files of the service that is asked, a new one.
    """
    folder.mkdir(parents=True)
    spec = tiny_spec(1, 1)
    async with staged(folder, spec, database="sqlite", roles=["api"], settings={}) as stage:
        (port,) = stage.ports
        connection = Connection(port)
        request = f"GET {PATH} HTTP/1.1\r\nHost: service\r\n\r\n".encode()
        ours = await _cost(lambda: connection.exchange(request))
        connection.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            theirs = await _cost(lambda: client.get(PATH))
    return {"ours": ours, "httpx": theirs}


async def _cost(ask: Callable[[], Awaitable[object]]) -> float:
    await ask()  # connects
    started = time.process_time()
    for _ in range(REQUESTS):
        await ask()
    return round(1000 * (time.process_time() - started) / REQUESTS, 3)
