"""An application of the service behind a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from aggregator_service.server import listen
from aggregator_service.settings import Settings


class QuickServer(uvicorn.Server):
    """Stops at once, where uvicorn looks ten times a second and then gives connections a tenth to close."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0.002)
        for server in self.servers:
            await server.wait_closed()
        await self.lifespan.shutdown()


@contextmanager
def listening(app: FastAPI, settings: Settings) -> Iterator[str]:
    """The address of the application, which runs in a thread of its own for as long as the block lasts."""
    with listen(settings) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, http="h11", loop="asyncio")
        server = QuickServer(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the application did not start"
                time.sleep(0.002)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
