"""A trial of real steps: how many, of what, and what is measured of them."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_bundle import tiny_files, tiny_manifest

from edge_sdk.planning.trial import run_trial, stretched
from edge_sdk.probe.system import System
from edge_sdk.units import MIB
from hetlora.errors import ConditionsUnmet
from hetlora.graph_names import ATTENTION_MASK, INPUT_IDS, LABELS, PIXEL_VALUES


def test_trial_counts_the_fastest_of_the_steps_after_the_first() -> None:
    taken, times = count(1), iter([0.0, 0.7, 10.0, 10.6])  # of two steps, before and after each
    trial = run_trial(lambda: lambda: next(taken), timer=lambda: next(times), system=System(Path("/absent")))
    assert trial.seconds == pytest.approx(0.6)
    assert next(taken) == 4


def test_short_steps_are_repeated_until_the_fastest_means_something() -> None:
    taken, clock = count(1), count()
    run_trial(lambda: lambda: next(taken), timer=lambda: 0.01 * next(clock))
    assert next(taken) - 1 == 1 + 20


def test_trial_finds_the_memory_that_a_step_takes_for_a_moment() -> None:
    def step() -> None:
        np.ones(64 * MIB, np.uint8)

    grown = run_trial(lambda: step).grown_bytes
    assert grown is None or 60 * MIB < grown < 100 * MIB  # None: a system that keeps no peak


def test_condition_that_is_lost_ends_the_trial_before_the_next_step() -> None:
    taken: list[int] = []

    def check() -> None:
        if len(taken) == 2:
            raise ConditionsUnmet("this device may not work now")

    with pytest.raises(ConditionsUnmet):
        run_trial(lambda: lambda: taken.append(1), check=check)
    assert len(taken) == 2


def test_battery_that_feeds_the_device_tells_its_power(tmp_path: Path) -> None:
    battery = tmp_path / "sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for name, value in {"type": "Battery", "status": "Discharging", "power_now": "7500000"}.items():
        (battery / name).write_text(value)
    trial = run_trial(lambda: lambda: None, system=System(tmp_path / "proc", tmp_path / "sys"))
    assert trial.watts == 7.5


def test_stretched_text_has_no_padding() -> None:
    ids = np.array([[5, 6, 0], [7, 8, 9]])
    batch: dict[str, Any] = {
        INPUT_IDS: ids,
        ATTENTION_MASK: (ids > 0).astype(np.int64),
        LABELS: np.array([0, 1]),
    }
    whole = stretched(batch, tiny_manifest(tiny_files()), rows=3, tokens=4)
    assert whole[INPUT_IDS].tolist() == [[5, 6, 0, 7], [8, 9, 5, 6], [0, 7, 8, 9]]
    assert whole[ATTENTION_MASK].tolist() == [[1] * 4] * 3
    assert whole[LABELS].tolist() == [0, 1, 0]


def test_stretched_pictures_are_more_of_the_same_size() -> None:
    pictures = tiny_manifest(tiny_files(), "image-classification")
    batch = {PIXEL_VALUES: np.zeros((1, 3, 2, 2), np.float32), LABELS: np.array([1])}
    whole = stretched(batch, pictures, rows=2, tokens=1)
    assert whole[PIXEL_VALUES].shape == (2, 3, 2, 2)
    assert whole[LABELS].tolist() == [1, 1]
