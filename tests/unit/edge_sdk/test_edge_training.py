import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from fake_bundle import adapter_of, tiny_files, tiny_manifest
from fake_runtime import QuadraticRuntime, Telling

from edge_sdk.runtimes.base import Batch
from edge_sdk.training.local import train_locally
from edge_sdk.training.trainer import Trainer
from hetlora.errors import TrainingDiverged
from hetlora.messages.device import TrainingSettings


def _settings(steps: int) -> TrainingSettings:
    return TrainingSettings(steps=steps, learning_rate=0.5, optimizer="sgd", pruning_penalty=0)


def _trainer(runtime: QuadraticRuntime, b: float = 0.25) -> Trainer:
    return Trainer(runtime, adapter_of(1, b=b), tiny_manifest(tiny_files()), _settings(9))


def _batches() -> Iterator[Batch]:
    return ({"labels": np.array([number])} for number in itertools.count())


def test_losses_are_those_of_the_first_and_the_last_step() -> None:
    # lora_B is 6 x 1, all 0: loss 0.5 * 6 * 1^2 = 3. Each step halves the distance: 3, 0.75, 0.1875.
    result = train_locally(_trainer(QuadraticRuntime(), b=0), _batches(), _settings(3), max_seconds=60)
    assert (result.steps, result.first_loss, result.last_loss) == (3, 3.0, 0.1875)
    np.testing.assert_array_equal(result.adapter.factors["query"].lora_B, np.full((6, 1), 0.875))


def test_each_step_takes_a_batch_of_its_own() -> None:
    runtime = QuadraticRuntime()
    train_locally(_trainer(runtime), _batches(), _settings(3), max_seconds=60)
    assert [int(batch["labels"][0]) for batch in runtime.batches] == [0, 1, 2]


def test_steps_are_told_as_they_are_done() -> None:
    told: list[tuple[int, float]] = []
    train_locally(
        _trainer(QuadraticRuntime(), b=0),
        _batches(),
        _settings(2),
        max_seconds=60,
        on_step=lambda step, loss: told.append((step, loss)),
    )
    assert told == [(1, 3.0), (2, 0.75)]


def test_no_step_begins_after_the_time_is_up() -> None:
    # Reads of the clock: start at 0, after the steps 4 and 10, and the end.
    ticks = iter([0.0, 4.0, 10.0, 10.0])
    result = train_locally(
        _trainer(QuadraticRuntime()), _batches(), _settings(5), max_seconds=10, timer=lambda: next(ticks)
    )
    assert (result.steps, result.seconds) == (2, 10.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_training(loss: float) -> None:
    runtime = Telling(1, 1, loss)
    with pytest.raises(TrainingDiverged, match=r"loss of step 3 of 9; got (nan|inf)"):
        train_locally(_trainer(runtime), _batches(), _settings(9), max_seconds=60)
    assert len(runtime.batches) == 3
