"""The programs of `examples/`, as they stand, against a real service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet, wait_until
from tiny_families import write_tiny_family

from benchmarks.fleet import POPULATION
from export.bundle_writer import export_bundle
from hetlora.messages.device import TrainingSettings
from hetlora.states import AssignmentState, RunState

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 90


class App:
    """A program of `examples/` with its lines in and out."""

    def __init__(self, fleet: TinyFleet, folder: Path, name: str, *words: str) -> None:
        environment = {**os.environ, "HETLORA_ENROLMENT_TOKEN": fleet.enrolment_token}
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLES / name, fleet.service.url, POPULATION, folder, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answers(self, line: str) -> str:
        """The next line after one was typed."""
        seen = len(self.lines)
        self.say(line)
        wait_until(lambda: len(self.lines) > seen, f"an answer to {line}")
        return self.lines[seen]

    def ended(self) -> list[str]:
        """All that it printed, once its input is at its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        exit_code = self.process.wait(SECONDS)
        self._reader.join()
        assert exit_code == 0, self.lines
        return self.lines

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


@contextmanager
def started(fleet: TinyFleet, folder: Path, name: str, *words: str) -> Iterator[App]:
    app = App(fleet, folder, name, *words)
    with app.process:
        try:
            yield app
        finally:
            app.process.kill()


@pytest.mark.parametrize("name", ["classify_intents.py", "personalise_chat.py"])
def test_example_is_short_enough_to_be_read(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 60


def test_classifier_learns_what_its_user_corrects_and_answers_without_the_service(
    fleet: TinyFleet, tmp_path: Path
) -> None:
    training = TrainingSettings(steps=20, batch_size=4, max_tokens=16, learning_rate=1e-2)
    run = fleet.start_run(rounds=1, goal_count=1, training=training)
    taught = ("snow and rain", "--learn", "snow and rain=weather", "--learn", "bread and soup=food")
    with started(fleet, tmp_path / "app", "classify_intents.py", *taught) as app:
        first = app.ended()
    assert any(line.startswith("[####################] step 20 of 20, loss") for line in first)
    assert "accepted: " in "\n".join(first)
    assert fleet.finished(run).state is RunState.COMPLETED
    fleet.service.stop()
    with started(fleet, tmp_path / "app", "classify_intents.py", "snow and rain") as app:
        alone = app.ended()
    assert any("does not answer" in line for line in alone)
    assert alone[-1].startswith("snow and rain: ")


def test_ctrl_c_ends_training_within_a_step_and_the_next_start_goes_on(
    fleet: TinyFleet, tmp_path: Path
) -> None:
    training = TrainingSettings(steps=400, batch_size=4, max_tokens=16)
    run = fleet.start_run(rounds=1, goal_count=1, training=training)
    with started(fleet, tmp_path / "app", "classify_intents.py", "snow", "--learn", "snow=weather") as app:
        wait_until(lambda: bool(fleet.in_state(run, AssignmentState.TRAINING)), "training")
        app.process.send_signal(signal.SIGINT)
        assert any(line.startswith("stopped: ") for line in app.ended())
    [kept] = fleet.in_state(run, AssignmentState.TRAINING)
    with started(fleet, tmp_path / "app", "classify_intents.py", "snow") as app:
        assert any(line.startswith("accepted: ") for line in app.ended())
    [done] = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert done.assignment_id == kept.assignment_id


def test_chat_answers_as_its_user_would_have_it(tmp_path: Path) -> None:
    bundle = export_bundle(
        str(write_tiny_family(tmp_path / "model", "smollm")),
        tmp_path / "bundle",
        task="text-generation",
        targets=["all-linear"],
        max_rank=8,
        max_tokens=32,
    )
    training = TrainingSettings(steps=60, batch_size=4, max_tokens=32, learning_rate=1e-2, pruning_decay=1.0)
    with (
        TinyFleet(tmp_path, bundle) as fleet,
        started(fleet, tmp_path / "app", "personalise_chat.py") as app,
    ):
        assert app.answers("snow rain sun") == "(nothing learnt yet)"
        app.say("= soup salt")
        # Nothing comes back of that: the next answer says that it was kept.
        assert app.answers("snow rain sun") == "(nothing learnt yet)"
        fleet.start_run(rounds=2, goal_count=1, training=training)
        wait_until(lambda: "[learnt from round 2]" in app.lines, "the second round's adapter")
        assert app.answers("snow rain sun").startswith("soup salt")
        app.say("forget")
        app.ended()
