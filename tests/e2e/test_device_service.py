"""`hetlora device run` as systemd would start and stop it, by the unit and the example of its settings."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet, wait_until

from benchmarks.fleet import POPULATION
from benchmarks.processes import COMMAND, Process
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import AssignmentStatus, RunStatus
from hetlora.states import AssignmentState, RunState

pytestmark = pytest.mark.slow

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
CREDENTIALS = "/run/credentials/hetlora-device.service"
STEPS = 400


def unit() -> configparser.SectionProxy:
    """The settings of the service; of those that are there several times the last."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / "hetlora-device.service")
    return parser["Service"]


def settings(fleet: TinyFleet, work: Path) -> dict[str, str]:
    """The environment file as an operator would fill it in."""
    examples = work / "examples.csv"
    rows = [f"words about {label},{label}" for label in fleet.bundle.manifest.labels]
    examples.write_text("\n".join(["text,label", *rows, ""]))
    text = (UNITS / "device.env.example").read_text()
    for stands, here in {
        "https://fl.example.org": fleet.service.url,
        "from-your-operator": fleet.enrolment_token,
        "support-intents": POPULATION,
        f"{CREDENTIALS}/examples.csv": str(examples),
    }.items():
        assert stands in text
        text = text.replace(stands, here)
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines}


def device(fleet: TinyFleet, work: Path) -> Process:
    """What systemd makes of the unit: `${NAME}` is one word, `$NAME` as many as its value has."""
    environment = {**settings(fleet, work), "STATE_DIRECTORY": str(work / "state")}
    started, *words = shlex.split(unit()["ExecStart"])
    assert started == "/opt/hetlora/bin/hetlora"
    command: list[str] = []
    for word in words:
        if word.startswith("${"):
            command.append(environment[word[2:-1]])
        else:
            command += environment[word[1:]].split() if word.startswith("$") else [word]
    return Process([*COMMAND, *command], work / "journal.txt", environment)


def assignments(fleet: TinyFleet, run: RunStatus) -> list[AssignmentStatus]:
    return list(fleet.operator.assignments(run.run_id))


def test_sigterm_in_the_middle_of_a_round_costs_no_assignment(fleet: TinyFleet, tmp_path: Path) -> None:
    training = TrainingSettings(steps=STEPS, batch_size=4, max_tokens=16)
    run = fleet.start_run(rounds=1, goal_count=1, training=training)
    with device(fleet, tmp_path) as process:
        wait_until(lambda: bool(fleet.in_state(run, AssignmentState.TRAINING)), "training")
        process.ask_to_stop()
        assert process.popen is not None
        assert process.popen.wait(float(unit()["TimeoutStopSec"])) == 0
    assert [status.state for status in assignments(fleet, run)] == [AssignmentState.TRAINING]
    [left] = assignments(fleet, run)
    assert "stopped, this visit was asked to end" in process.log.read_text()
    assert oct((tmp_path / "state").stat().st_mode)[-3:] == unit()["StateDirectoryMode"][-3:]

    with device(fleet, tmp_path):
        assert fleet.finished(run).state is RunState.COMPLETED
    [done] = assignments(fleet, run)
    assert (done.assignment_id, done.state) == (left.assignment_id, AssignmentState.ACCEPTED)


def test_refused_device_ends_with_a_code_that_is_not_started_again(fleet: TinyFleet, tmp_path: Path) -> None:
    process = device(fleet, tmp_path)
    process.environment["HETLORA_ENROLMENT_TOKEN"] = "no such token"
    with process:
        assert process.popen is not None
        code = process.popen.wait(60)
    assert str(code) in unit()["RestartPreventExitStatus"].split()
    assert "Traceback" not in process.log.read_text()


def test_service_that_is_away_is_waited_for_and_the_journal_says_so(fleet: TinyFleet, tmp_path: Path) -> None:
    fleet.service.stop()
    with device(fleet, tmp_path) as process:
        wait_until(lambda: "event=visit_failed" in process.log.read_text(), "a line about it")
        assert process.running
        fleet.service.start()
        run = fleet.start_run(rounds=1, goal_count=1)
        assert fleet.finished(run).state is RunState.COMPLETED
