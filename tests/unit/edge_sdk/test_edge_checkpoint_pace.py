"""How often a training keeps a checkpoint."""

from __future__ import annotations

from contextlib import suppress

import pytest
from device_clock import Clock

from edge_sdk.session.checkpoints import CheckpointPace

MB = 1_000_000


def checkpointed_steps(state_bytes: int, step_seconds: float, write_seconds: float, steps: int) -> list[int]:
    """After which steps a checkpoint was made, where all take their time."""
    timer = Clock(100)
    pace = CheckpointPace(state_bytes, timer)
    made = []

    def write() -> None:
        timer.now += write_seconds

    for step in range(1, steps + 1):
        timer.now += step_seconds
        if pace.is_due():
            pace.make(write)
            made.append(step)
    return made


def test_step_that_outlasts_what_a_checkpoint_is_worth_has_one_each_time() -> None:
    # 9 MB: 0.153 s are expected at first, 15.3 s of training; then 0.01 s, so that the bytes bind: 2.1 s.
    assert checkpointed_steps(9 * MB, step_seconds=16, write_seconds=0.01, steps=5) == [1, 2, 3, 4, 5]


def test_short_steps_have_one_when_training_has_paid_for_it() -> None:
    # 0.003 s and a little are expected, 0.302 s of training; then 0.0018 s are measured, 0.18 s of it.
    assert checkpointed_steps(1000, step_seconds=0.1, write_seconds=0.0018, steps=9) == [4, 6, 8]


@pytest.mark.parametrize("step_seconds", [0.01, 0.3, 5.0])
@pytest.mark.parametrize("write_seconds", [0.002, 0.1, 2.0])
def test_checkpoints_take_one_percent_at_most(step_seconds: float, write_seconds: float) -> None:
    made = checkpointed_steps(1000, step_seconds, write_seconds, steps=2000)
    first = made[0] * step_seconds
    later_seconds = 2000 * step_seconds - first
    # The first goes by a guess of the disk; each after it by what the one before it took.
    assert (len(made) - 1) * write_seconds <= 0.01 * later_seconds * (1 + 1e-9)


def test_checkpoint_that_fails_is_tried_again_when_the_next_is_due() -> None:
    timer = Clock(100)
    pace = CheckpointPace(1000, timer)

    def fail() -> None:
        timer.now += 0.01
        raise OSError("full")

    timer.now += 1
    assert pace.is_due()
    with suppress(OSError):
        pace.make(fail)
    timer.now += 0.9
    assert not pace.is_due()
    timer.now += 0.2
    assert pace.is_due()
