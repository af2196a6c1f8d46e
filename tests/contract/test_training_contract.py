"""The trainer of Python takes the literal steps that those of the other clients take."""

from __future__ import annotations

import json
import math

import adaptation_cases
import numpy as np
from numpy.typing import NDArray
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


def test_rounds_under_every_adaptation_are_those_of_the_literal_file() -> None:
    literal = json.loads(adaptation_cases.FILE.read_text())
    for kept, made in zip(literal["cases"], adaptation_cases.adaptation_cases()["cases"], strict=True):
        for before, now in zip(kept["steps"], made["steps"], strict=True):
            assert math.isclose(before.pop("loss"), now.pop("loss"), rel_tol=1e-6)
            # Products with cores are summed in the order of the machine's library.
            fed, own = before.pop("fed"), now.pop("fed")
            assert fed.keys() == own.keys()
            for key in fed:
                np.testing.assert_allclose(floats(own[key]), floats(fed[key]), rtol=1e-6)
        assert kept == made


def floats(hexadecimal: str) -> NDArray[np.float32]:
    return np.frombuffer(bytes.fromhex(hexadecimal), "<f4")
