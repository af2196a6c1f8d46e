"""How soon pages are answered: GETs of a signed-in operator, one after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from hetlora.errors import ServiceFailed


@dataclass(frozen=True, slots=True)
class Answer:
    """One address, asked several times; milliseconds to the last byte of the answer."""

    name: str
    path: str
    median_ms: float
    slowest_ms: float
    size_bytes: int


def answers(client: httpx.Client, paths: Mapping[str, str], times: int) -> list[Answer]:
    """Each path asked once for nothing, and then `times` times.

    Raises:
        ServiceFailed: one is not answered with 200.
    """
    return [_answer(client, name, path, times) for name, path in paths.items()]


def _answer(client: httpx.Client, name: str, path: str, times: int) -> Answer:
    milliseconds, size = [], 0
    for number in range(times + 1):
        began = time.perf_counter()
        got = client.get(path)
        milliseconds.append(1000 * (time.perf_counter() - began))
        if got.status_code != 200:
            raise ServiceFailed(f"{path} is not answered", got=f"{got.status_code} on try {number}")
        size = len(got.content)
    return Answer(name, path, statistics.median(milliseconds[1:]), max(milliseconds[1:]), size)
