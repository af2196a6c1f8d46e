"""What simulated devices send: as real as the service can tell, and the same for the same assignment."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from benchmarks.service.wire import Request
from hetlora import tus
from hetlora.digest import sha256_of
from hetlora.messages.common import Message, ObjectRef
from hetlora.messages.device import CapabilityReport, Report
from hetlora.messages.evaluation import EvaluationReport

TUS: Final = (("Tus-Resumable", tus.VERSION),)
GIGA: Final = 10**9
CAPABILITIES: Final = CapabilityReport(
    source="given",
    cores=2,
    memory_total_bytes=8 * GIGA,
    memory_available_bytes=4 * GIGA,
    matmul_flops_per_second=1e9,
    disk_free_bytes=GIGA,
)


def promise(update: bytes) -> tuple[tuple[str, str], ...]:
    """The headers that begin an upload in parts."""
    length = ("Upload-Length", str(len(update)))
    return (*TUS, length, ("Upload-Metadata", tus.sha256_pair(sha256_of(update))))


def part_headers(part: bytes, offset: int) -> tuple[tuple[str, str], ...]:
    """The headers of a part."""
    kind, place = ("Content-Type", tus.PART_TYPE), ("Upload-Offset", str(offset))
    return (*TUS, kind, place, ("Upload-Checksum", tus.sha256_pair(sha256_of(part))))


def moved(adapter: bytes, name: str) -> bytes:
    """An adapter's safetensors after a small random move, the same for the same name."""
    start = 8 + int.from_bytes(adapter[:8], "little")
    rng = drawing(name)
    numbers = np.frombuffer(adapter, np.float32, offset=start)
    return adapter[:start] + (numbers + 0.05 * rng.standard_normal(len(numbers), np.float32)).tobytes()


def posted(path: str, message: Message) -> Request:
    """A message as JSON."""
    return Request("POST", path, message.model_dump_json().encode())


def report_of(update: bytes, rank: int, example_count: int) -> Report:
    """The report that goes with an update."""
    return Report(
        update=ObjectRef(sha256=sha256_of(update), size_bytes=len(update)),
        rank=rank,
        example_count=example_count,
        steps=1,
        first_loss=1.0,
        last_loss=0.5,
        training_seconds=0.0,
        peak_memory_bytes=0,
        downloaded_bytes=len(update),
    )


def scored(name: str) -> EvaluationReport:
    """What a device reports of an evaluation, the same for the same name."""
    rng = drawing(name)
    example_count = int(rng.integers(1, 50))
    return EvaluationReport(
        example_count=example_count,
        loss=float(rng.uniform(0, 3)),
        correct_count=int(rng.integers(example_count + 1)),
    )


def drawing(name: str) -> np.random.Generator:
    """Random numbers that are the same for the same name."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
