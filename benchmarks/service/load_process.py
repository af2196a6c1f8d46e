"""A part of a fleet, in a process of its own; run with a config file.

Every device visits until an update of its is accepted. Latencies go to the file `out` (npz, seconds by step);
one JSON object with the rest is printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service.device import Asked, Device, Step
from benchmarks.service.wire import Answer, Connection, ConnectionBroken, Key
from hetlora.states import AssignmentState


class Timed:
    """The `Ask` of whoever has one request under way at a time: each goes to the next replica, and is timed.

    It keeps one connection to each replica, over all the devices that it asks for.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.key: Key | None = None  # who asks
        self.seconds: dict[Step, list[float]] = defaultdict(list)
        self.failed: Counter[str] = Counter()  # tries, by status
        self._connections = [Connection(port) for port in ports]
        self._turn = 0

    async def __call__(self, asked: Asked) -> Answer:
        """See `Ask`."""
        assert self.key is not None
        while True:
            connection = self._connections[self._turn % len(self._connections)]
            self._turn += 1
            signed = asked.request.signed(self.key, time.time())
            started = time.perf_counter()
            try:
                answer = await connection.exchange(signed)
            except ConnectionBroken:
                self.failed["none"] += 1
                continue
            if answer.status < 500 and answer.status != 429:
                self.seconds[asked.step].append(time.perf_counter() - started)
                return answer
            self.failed[str(answer.status)] += 1
            await asyncio.sleep(0.1)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()


@dataclass
class Load:
    """Devices that visit, so many at a time."""

    config: dict[str, Any]

    async def run(self) -> tuple[dict[str, Any], dict[Step, list[float]]]:
        """All devices to their end: what is printed, and the latencies."""
        first = self.config["first"]
        numbers = iter(range(first, first + self.config["count"]))
        askers = [Timed(self.config["ports"]) for _ in range(self.config["concurrency"])]
        started, cpu_started = time.perf_counter(), time.process_time()
        receipts = await asyncio.gather(*(self._visit_all(ask, numbers) for ask in askers))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        latencies: dict[Step, list[float]] = defaultdict(list)
        failed: Counter[str] = Counter()
        for ask in askers:
            ask.close()
            failed += ask.failed
            for step, own in ask.seconds.items():
                latencies[step] += own
        told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "failed_tries": dict(failed)}
        return {**told, "accepted": sum(receipts)}, latencies

    async def _visit_all(self, ask: Timed, numbers: Iterator[int]) -> int:
        """Bring one device after another to its accepted update; answers how many."""
        accepted = 0
        for number in numbers:
            ask.key = Key(self.config["seed"], number)
            device = Device(ask.key, self.config["population"], ask)
            while True:
                visit = await device.visit()
                if visit.receipt is not None and visit.receipt.state is AssignmentState.ACCEPTED:
                    accepted += 1
                    break
                await asyncio.sleep(min(visit.retry_after_seconds, self.config["longest_wait_seconds"]))
        return accepted


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    printed, found = asyncio.run(Load(given).run())
    arrays: dict[str, Any] = {step: np.array(own) for step, own in found.items()}
    np.savez(given["out"], **arrays)
    print(json.dumps(printed))
