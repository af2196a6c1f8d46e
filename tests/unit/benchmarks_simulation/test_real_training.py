"""Virtual devices that train for real: the same wherever it runs, and what they learned is scored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulation.fleet_file import FleetFile
from benchmarks.simulation.learning import Learning, open_learning
from benchmarks.simulation.outcome import Outcome
from benchmarks.simulation.simulation import simulate
from edge_sdk.examples import Example
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.errors import SettingsError

DEVICES = 6
# Beside a checkout, or wherever the variable says; none of it is part of the project.
DATA_SETS = Path(os.environ.get("HETLORA_DATA_SETS", Path(__file__).parents[3].parent / "shared" / "data"))


def fleet(**changes: Any) -> FleetFile:
    values: dict[str, Any] = {
        "training": {"task": "intents", "data": "", "score_every": 2},
        "tick_seconds": 60,
        # Nearly always there.
        "availability": {"share": 0.9, "peak_over_trough": 1, "spread_between_devices": 1},
        "run": {
            "rounds": 3,
            "goal_count": 3,
            "max_rank": 4,
            "training": {"steps": 2, "batch_size": 4, "max_tokens": 16, "learning_rate": 0.01},
        },
        "devices": [
            {
                "name": "board",
                "count": DEVICES,
                "cores": 2,
                "memory_available_mb": 1000,
                "gigaflops_per_core": 10,
                "download_mbit_per_second": 50,
                "upload_mbit_per_second": 10,
                "dropout": 0,
            }
        ],
    }
    return FleetFile.model_validate({**values, **changes})


def simulated(bundle: Bundle, folder: Path, **changes: Any) -> tuple[Outcome, list[Adapter]]:
    scored: list[Adapter] = []

    def score(adapter: Adapter | None) -> float:
        assert adapter is not None
        scored.append(adapter)
        return float(len(scored))

    labels = bundle.manifest.labels
    examples = [
        [
            Example(
                f"{labels[(device + number) % len(labels)]} {number}", labels[(device + number) % len(labels)]
            )
            for number in range(4 + device)
        ]
        for device in range(DEVICES)
    ]
    learning = Learning(bundle, examples, score)
    return simulate(fleet(**changes), learning, folder, lambda *_: None), scored


def test_devices_learn_and_what_they_learned_is_scored(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Scores are those of the versions after 0, 2 and, as it is the last, 3 rounds."""
    outcome, (initial, _, last) = simulated(tiny_bundle, tmp_path)

    assert outcome.state == "completed"
    assert outcome.scores == {0: 1.0, 2: 2.0, 3: 3.0}
    assert sum(outcome.kinds[0].ranks.values()) == 9
    moved = [abs(factors.lora_B - initial.factors[module.name].lora_B).max() for module, factors in last]
    assert max(moved) > 1e-3  # AdamW at a rate of 0.01


@pytest.mark.slow
def test_outcome_is_the_same_on_a_ray_cluster(tiny_bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    training = {"task": "intents", "data": "", "score_every": 2}

    here, adapters = simulated(tiny_bundle, tmp_path / "here")
    there, others = simulated(tiny_bundle, tmp_path / "there", training={**training, "backend": "ray"})

    assert here == there
    for one, other in zip(adapters, others, strict=True):
        assert all((one.factors[name].lora_A == other.factors[name].lora_A).all() for name in one.factors)


def test_rule_whose_devices_keep_numbers_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    asked = fleet().run.model_dump(mode="json") | {"rule": {"name": "fedsa"}}

    with pytest.raises(SettingsError, match="keep nothing from round to round"):
        simulated(tiny_bundle, tmp_path, run=asked)


@pytest.mark.slow
def test_task_of_another_number_of_clients_is_refused(tmp_path: Path) -> None:
    """LoCoMo's ten chats have two personas each."""
    data = DATA_SETS / "locomo"
    if not data.is_dir():
        pytest.skip(f"no copy of locomo in {DATA_SETS}; set HETLORA_DATA_SETS")

    with pytest.raises(SettingsError, match="got 6 in the fleet file; expected 20"):
        open_learning(fleet(training={"task": "personas", "data": f"{data}"}), tmp_path / "task")


def test_bundle_of_ones_own_is_refused_where_the_task_has_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="bundle of their task"):
        open_learning(fleet(), tmp_path / "task", tmp_path / "own")
