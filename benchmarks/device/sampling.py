"""What a process holds and what its machine draws, looked at again and again while something runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psutil

from edge_sdk.probe.clock import measure_clock
from edge_sdk.probe.power import measure_processor_joules, measure_watts
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature, measure_throttling

# Sensors of boards are read over slow buses; more often they would cost what they measure.
INTERVAL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One look, `at` seconds after the first; None is what no sensor tells."""

    at: float
    rss_bytes: int
    watts: float | None
    celsius: float | None
    is_throttled: bool | None
    clock_hz: int | None


class Sampler:
    """Samples from entering the context to leaving it, in a thread."""

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS, system: System | None = None) -> None:
        self.samples: list[Sample] = []
        self.joules: float | None = None  # of the processor alone, by RAPL
        self._interval = interval_seconds
        self._system = system or System()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._began, self._drawn = time.perf_counter(), measure_processor_joules(self._system)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        drawn = measure_processor_joules(self._system)
        # The counter begins again at its end: then nothing is known.
        if drawn is not None and self._drawn is not None and drawn > self._drawn:
            self.joules = drawn - self._drawn

    def watts(self) -> float | None:
        """The mean power: of the whole device where a sensor tells it, else of the processor, else None."""
        told = [sample.watts for sample in self.samples if sample.watts is not None]
        if told:
            return mean(told)
        seconds = self.samples[-1].at if self.samples else 0.0
        return self.joules / seconds if self.joules is not None and seconds else None

    def _look(self) -> None:
        while True:
            self.samples.append(self._sample())
            if self._ended.wait(self._interval):
                self.samples.append(self._sample())
                return

    def _sample(self) -> Sample:
        clock = measure_clock(self._system)
        return Sample(
            time.perf_counter() - self._began,
            psutil.Process().memory_info().rss,
            measure_watts(self._system),
            measure_temperature(self._system),
            measure_throttling(self._system),
            None if clock is None else clock.now_hz,
        )


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)
