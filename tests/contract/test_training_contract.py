"""The trainer of Python takes the literal steps that those of the other clients take."""

from __future__ import annotations

import json
import math

from training_cases import FILE, training_cases


def test_steps_are_those_of_the_literal_file() -> None:
    literal, now = json.loads(FILE.read_text()), training_cases()
    for case in (*literal["cases"], *now["cases"]):
        losses = [step.pop("loss") for step in case["steps"]]
        case["losses"] = losses
    for kept, made in zip(literal["cases"], now["cases"], strict=True):
        # Sums of squares in float32, whose order is the machine's.
        for loss, own in zip(kept.pop("losses"), made.pop("losses"), strict=True):
            assert math.isclose(loss, own, rel_tol=1e-6)
        assert kept == made
