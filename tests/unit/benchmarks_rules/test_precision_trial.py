"""The comparison of precisions: the same clients and rounds, and only what goes up differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aggregator_service.aggregation.rule import Handout
from benchmarks.rules.precision import VARIANTS, Outcome, Trial, rows_of, run_on
from benchmarks.rules.simulation import Setting, Trained
from benchmarks.service.tiny_bundle import tiny_spec, write_tiny_bundle
from benchmarks.tasks.clients import Client
from benchmarks.tasks.task import Task
from edge_sdk.examples import Example
from hetlora.adapter import Adapter, LoraFactors

RANK = 16
NO_FOLDER = Path("not", "read")


def pulled(setting: Setting, client: Client, begun: Adapter, handout: Handout, round_index: int) -> Trained:
    """Local training of one line: a share of the way to numbers, of which one is far larger than the rest."""
    factors = {}
    for name, own in begun.factors.items():
        lora_B = own.lora_B + 0.2 * (_target(own.lora_B.shape) - own.lora_B)
        factors[name] = LoraFactors(own.lora_A, lora_B)
    return Trained(Adapter(begun.spec, factors))


def _target(shape: tuple[int, int]) -> np.ndarray:
    target = np.full(shape, 0.003)
    target[0] = 10
    return target


def _score(adapter: Adapter | None) -> float:
    """Minus the distance of the small numbers."""
    assert adapter is not None
    return -float(max(np.abs(own.lora_B - _target(own.lora_B.shape))[1:].max() for _, own in adapter))


@pytest.fixture
def trial() -> Trial:
    return Trial("intents", NO_FOLDER, NO_FOLDER, "zero_pad", 3, 3, rounds=8, steps=1, learning_rate=1.0)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    bundle = write_tiny_bundle(tmp_path / "bundle", tiny_spec(RANK, RANK))
    clients = [Client(number, RANK, [Example("text", "label")]) for number in range(3)]
    return Task(bundle, tmp_path, clients, _score, lambda logits_of: 0.0, "minus distance")


def test_lower_precisions_send_fewer_bytes_and_feedback_wins_back_what_rounding_loses(
    trial: Trial, task: Task
) -> None:
    rows = {
        row.variant: row for row in rows_of({n: [run_on(task, trial, n, 0, pulled)] for n in VARIANTS}, 3)
    }
    assert rows["float32"].share == 1
    assert 0.5 < rows["float16"].share < 0.7  # of tiny factors the header is much
    assert 0.25 < rows["int8"].share < 0.6
    assert rows["int8"].update_bytes == rows["int8_without_feedback"].update_bytes
    # A step is 10 * 0.2 / 127 = 0.016 at first: 0.003 is not seen before the large number is almost there.
    assert rows["int8_without_feedback"].score < 1.5 * rows["int8"].score < rows["float32"].score


def test_same_seed_gives_the_same_run(trial: Trial, task: Task) -> None:
    assert run_on(task, trial, "int8", 1, pulled) == run_on(task, trial, "int8", 1, pulled)


def test_rows_are_means_over_the_last_fifth_of_the_rounds() -> None:
    outcomes = {
        "float32": [Outcome([400] * 5, [0, 0, 0, 0, 0.5]), Outcome([400] * 5, [0, 0, 0, 0, 0.7])],
        "int8": [Outcome([100, 100, 100, 100, 200], [0, 0, 0, 0, 0.5])],
    }
    whole, part = rows_of(outcomes, cohort=4)
    assert (whole.update_bytes, whole.share, whole.score, whole.scores) == (100.0, 1.0, 0.6, [0.5, 0.7])
    assert whole.deviation == pytest.approx(0.1414)
    assert (part.update_bytes, part.share, part.score, part.deviation) == (30.0, 0.3, 0.5, 0.0)
