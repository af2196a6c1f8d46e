"""Steps of a device's round and bare steps of ONNX Runtime, in turn; run with a config file.

Prints one JSON object. It needs hetlora's edge part, and nothing of the other parts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.device.bare_onnx import BareSteps
from benchmarks.device.clock import TIMERS, HeldClock
from benchmarks.device.training import Case, DeviceTraining
from edge_sdk.conditions import Watch
from edge_sdk.events import Event, StepDone
from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.session.resuming import Checkpoints
from edge_sdk.training.local import train_locally
from hetlora.messages.conditions import Conditions

# Steps that count for nothing; each keeps a checkpoint, so that the pace of those that follow is measured.
WARM_UP: Final = 2
# All that a run can ask of a device itself, and that any device meets: each has to be looked up.
CONDITIONS: Final = Conditions(
    charging=True,
    unmetered=True,
    min_battery_percent=0,
    max_temperature_celsius=150,
    min_free_memory_bytes=0,
    hours=("00:00-12:00", "12:00-00:00"),
)


class PairedTraining:
    """A round whose every step has a bare one of the same batch beside it, before it and after it in turn.

    `seconds` are by clock and side, "sdk" or "bare", one for each step, "data" for those in which the round
    read its batch, which count for neither side, and "checkpoint" for those in which it kept one, or found
    that none is due; these are not among the step's. The first losses of both are in `first_losses`.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._round = DeviceTraining(case, folder)
        self._trainer = self._round.trainer()
        runtime = self._trainer._runtime
        assert isinstance(runtime, OnnxRuntime)
        self._bare = BareSteps(runtime, case.bundle, case.training, threads=case.threads)
        self._clocks = {name: HeldClock(timer) for name, timer in TIMERS.items()}
        self._checkpoints = Checkpoints(
            self._trainer, self._round.assignments, case.steps, timer=self._clocks["wall"]
        )
        # Somebody else's to say, so that a device on a network of another kind is no exception here.
        is_allowed = Watch(of_run=CONDITIONS).unmet() is None
        self._watch = Watch(of_run=CONDITIONS, is_metered=None if is_allowed else lambda: False)
        self._marks: dict[str, float] = {}
        self._batch: Batch = {}
        self.events: list[Event] = []
        self.first_losses: dict[str, float] = {}
        self.seconds: dict[str, dict[str, list[float]]] = {
            name: {"sdk": [], "bare": [], "data": [], "checkpoint": []} for name in self._clocks
        }

    def run(self) -> None:
        """Take all steps."""
        self._mark()
        train_locally(
            self._trainer,
            self._batches(),
            self._case.training,
            max_seconds=24 * 3600.0,
            on_step=self._on_step,
            keep=self._keep,
            timer=self._clocks["wall"],
        )
        self._round.close()

    def _batches(self) -> Iterator[Batch]:
        for batch in self._round.batches():
            self._batch = batch
            for name, clock in self._clocks.items():
                self.seconds[name]["data"].append(clock() - self._marks[name])
            if self._trainer.steps_done % 2:
                self._take_bare()
            self._mark()
            yield batch

    def _keep(self, seconds: float) -> None:
        before = {name: clock() for name, clock in self._clocks.items()}
        if self._trainer.steps_done > WARM_UP:
            self._checkpoints.keep(seconds)
        else:
            self._checkpoints.keep_now()
        for name, clock in self._clocks.items():
            took = clock() - before[name]
            self.seconds[name]["checkpoint"].append(took)
            self._marks[name] += took

    def _on_step(self, step: int, loss: float) -> None:
        """As `TrainingAssignment` has it."""
        self.events.append(StepDone(step, self._case.steps, loss))
        self._watch.check()
        for name, clock in self._clocks.items():
            self.seconds[name]["sdk"].append(clock() - self._marks[name])
        self.first_losses.setdefault("sdk", loss)
        if step % 2:
            self._take_bare()
        self._mark()

    def _take_bare(self) -> None:
        with ExitStack() as stack:
            for clock in self._clocks.values():
                stack.enter_context(clock.held())
            before = {name: timer() for name, timer in TIMERS.items()}
            loss = self._bare.step(self._batch)
            for name, timer in TIMERS.items():
                self.seconds[name]["bare"].append(timer() - before[name])
            self.first_losses.setdefault("bare", loss)

    def _mark(self) -> None:
        self._marks = {name: clock() for name, clock in self._clocks.items()}


def run(config: dict[str, Any]) -> dict[str, Any]:
    """The seconds of each step of both sides, and what checkpoints took of them."""
    with tempfile.TemporaryDirectory(dir=config["work"]) as folder:
        paired = PairedTraining(Case.of(config), Path(folder))
        paired.run()
    return {
        "seconds": paired.seconds,
        "first_losses": paired.first_losses,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
