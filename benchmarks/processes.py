"""Child processes of a benchmark: the service, devices, and whatever is measured beside them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import psutil

from edge_sdk.probe.peak_memory import peak_memory_bytes
from hetlora.cli.operator import TOKEN_FILE, Operator
from hetlora.errors import ServiceFailed, ServiceUnreachable

COMMAND: Final = (sys.executable, "-m", "hetlora.cli")
START_SECONDS: Final = 30.0


def free_port() -> int:
    """A port of the loopback address that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Process:
    """A child process whose output goes to a file; leaving the context kills it."""

    command: Sequence[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, again if it was killed."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **self.environment}
            )

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def hang(self) -> None:
        """Stop the process where it is."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a hanging process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.popen is not None:
            self.popen.send_signal(number)  # which leaves alone what has ended

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.terminate()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after two seconds."""
        if self.popen is None or self.popen.poll() is not None:
            return
        self.ask_to_stop()
        try:
            self.popen.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()

    def peak_rss_bytes(self) -> int:
        """Peak resident memory so far; the present one where the system keeps no peak."""
        assert self.popen is not None
        return peak_memory_bytes(self.popen.pid)

    def cpu_seconds(self) -> float:
        """Processor time so far: of the process, of its children that ended, and of those that still run."""
        assert self.popen is not None
        process = psutil.Process(self.popen.pid)
        own = process.cpu_times()
        running = [child.cpu_times() for child in process.children(recursive=True)]
        seconds = own.children_user + own.children_system
        return float(seconds + sum(times.user + times.system for times in (own, *running)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Service(Process):
    """`hetlora serve` on a free port of the loopback address."""

    def __init__(self, data_dir: Path, log: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are environment variables of docs/settings.md."""
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        super().__init__(
            [*COMMAND, "serve", "--data-dir", str(data_dir), "--port", port], log, dict(settings or {})
        )

    def start(self) -> None:
        """Start the service and wait until it is ready."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise ServiceFailed("the service did not start", got=self.log.read_text()[-500:])
            try:
                if httpx.get(f"{self.url}/internal/v1/ready", timeout=2).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise ServiceUnreachable("the service is not ready", got=f"nothing for {START_SECONDS:.0f} s")

    def operator(self) -> Operator:
        """A connection with the token that the service made for itself."""
        return Operator(self.url, (self.data_dir / TOKEN_FILE).read_text().strip())
