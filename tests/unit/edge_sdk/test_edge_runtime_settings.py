from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from edge_sdk.runtimes.settings import capped_threads, check_learning_rate, check_penalty
from hetlora.errors import SettingsError


@pytest.mark.parametrize("rate", [None, -1e-3, float("nan"), float("inf"), "0.1", True])
def test_learning_rate_that_takes_no_step_is_refused(rate: Any) -> None:
    with pytest.raises(SettingsError, match="learning_rate"):
        check_learning_rate(rate)


@pytest.mark.parametrize("rate", [0, 1e-3, np.float32(0.5)])
def test_learning_rate_that_is_a_number_passes(rate: Any) -> None:
    check_learning_rate(rate)


@pytest.mark.parametrize(
    ("decay", "penalty", "message"),
    [
        (0.5, -1e-9, "pruning_penalty; got -1e-09; expected 0 or more"),
        (0.5, float("nan"), "pruning_penalty; got nan"),
        (0.5, None, "pruning_penalty"),
        (-0.1, 0.1, "pruning_decay; got -0.1; expected 0 to 1"),
        (1.5, 0.1, "pruning_decay"),
        (float("nan"), 0.1, "pruning_decay"),
    ],
)
def test_penalty_that_means_nothing_is_refused(decay: Any, penalty: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_penalty(pruning_decay=decay, pruning_penalty=penalty)


def test_threads_are_no_more_than_cores() -> None:
    cores = os.cpu_count() or 1
    assert (capped_threads(10**6), capped_threads(1), capped_threads(None)) == (cores, 1, None)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_that_are_no_number_of_threads_are_refused(threads: Any) -> None:
    with pytest.raises(SettingsError, match="expected 1 or more"):
        capped_threads(threads)
