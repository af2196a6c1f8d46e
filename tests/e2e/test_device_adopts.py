"""`hetlora device run --adopt if_not_worse` over two rounds: what is held out decides who answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e_fleet import TinyFleet, wait_until

from benchmarks.fleet import POPULATION
from benchmarks.processes import COMMAND
from hetlora.messages.device import TrainingSettings
from hetlora.states import RunState

pytestmark = pytest.mark.slow

LEARNT = [("snow and rain", "weather"), ("bread and soup", "food"), ("ball and goal", "sport")]
# The texts that are learnt under other labels: the better they are learnt, the worse the loss on these.
TURNED = [("snow and rain", "food"), ("bread and soup", "sport"), ("ball and goal", "weather")]


def hetlora(*words: str | Path) -> str:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def adapters(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(hetlora("device", "adapter", "show", "--folder", folder, "--json"))
    return told


@pytest.mark.parametrize(
    ("held_out", "outcome", "round_in_use"),
    [pytest.param(LEARNT, "adopted", 1, id="learnt"), pytest.param(TURNED, "kept", 0, id="turned")],
)
def test_second_adapter_is_put_in_use_unless_it_is_worse_on_what_is_held_out(
    fleet: TinyFleet, tmp_path: Path, held_out: list[tuple[str, str]], outcome: str, round_in_use: int
) -> None:
    folder, files = tmp_path / "device", {"examples": LEARNT, "held-out": held_out}
    options: list[str | Path] = ["--url", fleet.service.url, "--population", POPULATION, "--folder", folder]
    for name, rows in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        options += [f"--{name}", path]
    options += ["--enrolment-token", fleet.enrolment_token, "--adopt", "if_not_worse", "--once"]
    # HetLoRA's pruning is off: what is learnt in a few steps stays.
    training = TrainingSettings(
        steps=30, batch_size=4, max_tokens=16, learning_rate=2e-2, pruning_decay=1.0, pruning_penalty=0.0
    )
    run = fleet.start_run(rounds=2, goal_count=1, training=training)

    first = hetlora("device", "run", *options)
    assert "round 1: accepted" in first
    wait_until(lambda: fleet.operator.run(run.run_id).rounds_committed == 1, "the second round")
    second = hetlora("device", "run", *options)
    assert "round 2: accepted" in second
    assert fleet.finished(run).state is RunState.COMPLETED
    found = adapters(folder)
    assert found["last_comparison"]["outcome"] == outcome
    new, in_use = (found["last_comparison"][f"{name}_held_out"]["loss"] for name in ("new", "in_use"))
    assert (new <= in_use) == (outcome == "adopted")
    assert found["current"]["round_index"] == round_in_use
    words = "adopted" if outcome == "adopted" else "not adopted"
    assert (
        f"global adapter of round 2 of run {run.run_id} {words}, loss {new:.4f} against {in_use:.4f}"
        in second
    )
