"""A device in a process of its own, to be killed at any moment; what it does stands in a log."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path

from ordered_runtime import OrderedRuntime
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.events import CheckedIn, Event, GivenUp, Resumed, StepDone
from edge_sdk.examples import Example
from edge_sdk.runtimes.base import Batch, Factors
from edge_sdk.session.keep_visiting import SHORTEST_WAIT_SECONDS
from edge_sdk.session.visit import Visit
from hetlora.adapter import Tensor

EXAMPLES = [
    Example("snow and ice", "cold", "first"),
    Example("sun and sand", "warm", "second"),
    Example("ice", "cold", "third"),
    Example("sand", "warm", "fourth"),
    Example("and", "cold", "fifth"),
]


@dataclass
class DeadlyRuntime(OrderedRuntime):
    """The process is killed in the step of this number, counted from 1 in each."""

    deadly_step: int = 1

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        self.deadly_step -= 1
        if self.deadly_step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradients(batch, factors)


class Log(logging.Handler):
    """Lines that are there when the process is killed after them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.endswith("event=checkpoint"):
            self.write(f"checkpoint {text.split()[0].removeprefix('step=')}")

    def on_event(self, event: Event) -> None:
        match event:
            case CheckedIn(offer) if offer is not None:
                self.write(f"offered {offer.assignment_id}")
            case Resumed(step):
                self.write(f"resumed {step}")
            case StepDone(step):
                self.write(f"step {step}")
            case GivenUp(assignment_id):
                self.write(f"given_up {assignment_id}")


class Hurry(threading.Event):
    """Comes back at once where the device would wait as short as it ever does."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.0 if timeout == SHORTEST_WAIT_SECONDS else timeout)


def live(
    url: str,
    folder: Path,
    log_file: Path,
    step_seconds: float,
    begun: ProcessEvent | None = None,
    visits: int | None = None,
    deadly_step: int | None = None,
) -> None:
    """Take part in rounds until killed, or for so many visits; says when it has begun.

    With `deadly_step` it is the first such step of a training that kills it.
    """
    log, stop = Log(log_file), Hurry()
    logger = logging.getLogger("edge_sdk.session.resuming")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(log)
    outcomes: list[str] = []

    def on_visit(visit: Visit) -> None:
        outcomes.append(visit.outcome)
        log.write(f"visit {visit.outcome}")
        if len(outcomes) == visits:
            stop.set()

    runtime = OrderedRuntime(step_seconds)
    if deadly_step is not None:
        runtime = DeadlyRuntime(step_seconds, deadly_step=deadly_step)
    log.write("life")
    if begun is not None:
        begun.set()
    with EdgeClient(
        url,
        "weather",
        folder,
        enrolment_token="token",
        capabilities=STRONG,
        runtime=runtime,
        upload_part_bytes=100,
        on_event=log.on_event,
    ) as client:
        client.examples.put_many(EXAMPLES)
        client.run_forever(stop=stop, on_visit=on_visit)
