"""The browser client's session, in Node with a trainer that has no model, in a round with a Python device."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_fleet import TinyFleet, assert_is_merge, wait_until
from web_client import WEB, built_program

from benchmarks.fleet import POPULATION
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.states import AssignmentState, EvaluationState, RunState

pytestmark = pytest.mark.slow

STEPS = 3


def page(fleet: TinyFleet, options: Mapping[str, object], program: str = "device") -> list[dict[str, Any]]:
    """Let a page take part until what it sends is accepted, and answer what it told."""
    told = {
        "url": fleet.service.url,
        "population": POPULATION,
        "token": fleet.enrolment_token,
        "capabilities": fleet.for_rank(2 if program == "device" else 4).model_dump(),
        **options,
    }
    command = ["node", str(built_program(program))]
    done = subprocess.run(
        command, cwd=WEB, input=json.dumps(told), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_toy(update: Adapter) -> None:
    """Each step n moves the i-th number of lora_B, which began as zero, by n (i % 5 + 1) / 1024."""
    moved = sum(range(1, STEPS + 1)) / 1024
    for _, factors in update:
        places = np.arange(factors.lora_B.size).reshape(factors.lora_B.shape)
        np.testing.assert_array_equal(factors.lora_B, moved * (places % 5 + 1))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="in one go"),
        pytest.param({"stopAfterStep": 2, "uploadPartBytes": 512}, id="reloaded, and uploaded in parts"),
    ],
)
def test_page_and_python_device_share_a_round_and_both_updates_are_merged(
    fleet: TinyFleet, options: dict[str, int]
) -> None:
    training = TrainingSettings(steps=STEPS, batch_size=4, max_tokens=16)
    run = fleet.start_run(rounds=1, goal_count=2, training=training)
    fleet.device("python", fleet.for_rank(4))

    told = page(fleet, options)
    finished = fleet.finished(run)

    assert finished.state is RunState.COMPLETED
    assert told[-1]["outcome"] == "accepted"
    assert told[-1]["report"]["rank"] == 2
    resumed = [line["step"] for line in told if line.get("kind") == "resumed"]
    assert resumed == ([options["stopAfterStep"]] if options else [])
    accepted = {status.device_id: status for status in fleet.in_state(run, AssignmentState.ACCEPTED)}
    assert len(accepted) == 2
    assert accepted[told[-1]["device"]].rank == 2
    sent = fleet.updates()
    assert len(sent) == 2
    check_toy(sent[told[-1]["report"]["update"]["sha256"]])
    assert_is_merge(fleet.committed(finished.adapter_version), sent.values())


def test_page_and_python_devices_send_the_same_scores_of_the_same_examples(
    tmp_path: Path, web_bundle: Bundle
) -> None:
    held_out = [
        (f"{words} {number}", label)
        for number in range(3)
        for label, words in (("weather", "snow and wind"), ("food", "bread"), ("sport", "a ball, a goal"))
    ]
    with TinyFleet(tmp_path, web_bundle) as fleet:
        run = fleet.start_run(
            rounds=1,
            goal_count=1,
            training=TrainingSettings(steps=3, batch_size=4, max_tokens=16, learning_rate=0.05),
            evaluation={"every_rounds": 1, "devices": 3, "window_seconds": 300},
        )
        for device in ("python", "another"):
            fleet.evaluator(device, held_out)
        rows = [{"text": text, "label": label} for text, label in held_out]
        (told,) = page(fleet, {"held_out": rows}, "evaluate")

        def evaluated() -> Any:
            versions = [own.evaluation for own in fleet.operator.adapters(run.run_id)]
            return next((own for own in versions if own and own.state is EvaluationState.CLOSED), None)

        wait_until(lambda: evaluated() is not None, "the evaluation")
        all_three = evaluated()

    mine = told["evaluation"]
    assert told["outcome"] == "accepted"
    assert (all_three.reports, all_three.figures.example_count) == (3, 3 * len(held_out))
    assert mine["example_count"] == len(held_out)
    # Equal losses have a mean of their own, and no deviation.
    assert all_three.figures.device_loss == pytest.approx(mine["loss"], abs=5e-6)
    assert all_three.figures.device_loss_deviation < 5e-6
    assert all_three.figures.accuracy == pytest.approx(mine["correct_count"] / len(held_out))
    assert all_three.figures.device_accuracy_deviation == 0
