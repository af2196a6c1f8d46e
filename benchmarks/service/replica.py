"""A process of a service: started, killed, stopped and started again."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import psutil

from benchmarks.processes import COMMAND, Process, free_port
from hetlora.errors import ServiceUnreachable

READY_SECONDS: Final = 60.0


class Replica(Process):
    """One process of a service, on a port of its own that it keeps over its lives."""

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], *, movable_clock: bool = False
    ) -> None:
        """`settings` are environment variables of docs/settings.md; `folder` holds log and clock."""
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.clock_file = folder / f"{name}.clock"
        command = [*COMMAND, "serve"]
        if movable_clock:
            command = [sys.executable, "-m", "benchmarks.service.serve_with_clock", str(self.clock_file)]
        own = {**settings, "HETLORA_PORT": str(self.port)}
        super().__init__(command, folder / f"{name}.log", own)
        self.changing = asyncio.Lock()  # held by whoever kills it, until it runs again

    async def up(self) -> None:
        """Wait until the process is ready; one that gives up at its start is started again.

        It may well give up, while its database is down; whatever runs it, such as systemd, does the same.

        Raises:
            ServiceUnreachable: it does not become ready.
        """
        deadline = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(timeout=5) as client:
            while time.monotonic() < deadline:
                if not self.running:
                    self.start()
                with suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/internal/v1/ready")).is_success:
                        return
                await asyncio.sleep(0.05)
        told = self.log.read_text(errors="replace")[-500:]
        raise ServiceUnreachable("a replica is not ready", got=f"{READY_SECONDS:.0f} s, then: {told}")

    def put_clock_wrong(self, seconds: float) -> None:
        """Have the process's clock, a movable one, off by so many seconds until it is put wrong by 0."""
        changed = self.clock_file.with_suffix(".new")
        changed.write_text(str(seconds))
        changed.replace(self.clock_file)

    def limit_files(self, size_bytes: int) -> None:
        """Refuse every write of the process that would make a file longer than this; -1 for no limit."""
        assert self.popen is not None
        with suppress(psutil.NoSuchProcess):  # it gave up by itself
            psutil.Process(self.popen.pid).rlimit(psutil.RLIMIT_FSIZE, (size_bytes, -1))
