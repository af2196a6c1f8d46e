"""A round that is taken, killed, or gone on with, as `act` in a config file says.

Prints one JSON object; what is to be killed waits for that then. It needs hetlora's edge part alone.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.device.clock import TIMERS
from benchmarks.device.training import Case, DeviceTraining, timed
from edge_sdk.session.resuming import Checkpoints, resumed


def take(config: dict[str, Any]) -> dict[str, Any]:
    """Take the offer of a round, and leave its folder closed."""
    DeviceTraining(Case.of(config), Path(config["folder"])).close()
    return {}


def train(config: dict[str, Any]) -> dict[str, Any]:
    """Train until there were enough checkpoints, or enough time; which steps had one, and their time."""
    case, timer = Case.of(config), TIMERS[config["clock"]]
    device = DeviceTraining(case, Path(config["folder"]))
    trainer, batches = device.trainer(), device.batches()
    checkpoints = Checkpoints(trainer, device.assignments, case.steps)
    kept: list[int] = []
    seconds: list[float] = []
    while len(kept) < config["checkpoints"] and sum(seconds) < config["most_seconds"]:
        seconds.append(timed(timer, lambda: trainer.step(next(batches))))
        checkpoints.keep(sum(seconds))
        status = device.assignments.status()
        if status is not None and status.trained_steps == trainer.steps_done:
            kept.append(trainer.steps_done)
    if not kept:
        checkpoints.keep_now()
    status = device.assignments.status()
    assert status is not None
    return {
        "kept_after": kept,
        "step_seconds": statistics.median(seconds),
        "checkpoint_bytes": status.stored_bytes["checkpoint"],
    }


def go_on(config: dict[str, Any]) -> dict[str, Any]:
    """The seconds from opening the folder to the end of the next step, and how many steps came before it."""
    case, timer = Case.of(config), TIMERS[config["clock"]]
    started = timer()
    device = DeviceTraining(case, Path(config["folder"]))
    trainer = device.trainer()
    restore_seconds = timed(timer, lambda: resumed(trainer, device.assignments))
    steps_before = trainer.steps_done
    trainer.step(next(device.batches(skip=steps_before)))
    seconds = timer() - started
    device.close()
    return {"steps_before": steps_before, "seconds": seconds, "restore_seconds": restore_seconds}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    act = {"take": take, "train": train, "go_on": go_on}[given["act"]]
    print(json.dumps(act(given)), flush=True)
    if given["act"] == "train":
        sys.stdin.read()
