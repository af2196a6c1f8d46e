"""The planner, the conditions and the probe answer as the files of this folder have it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from device_answers import ANSWERS, FOLDER, as_lines

PLANNED: Any = json.loads((FOLDER / "planning.json").read_text())
CHOICES = [case["expected"] for case in PLANNED["cases"]]


@pytest.mark.parametrize("name", ANSWERS)
def test_this_device_answers_as_is_written(name: str) -> None:
    written = (FOLDER / name).read_text()
    answered = ANSWERS[name](json.loads(written))
    for of, those in answered.items():  # one after the other, so that a failure shows which
        for one, pinned in zip(those, json.loads(written)[of], strict=True):
            assert one == pinned
    assert as_lines(answered) == written


def test_each_limit_bounds_a_rank_somewhere() -> None:
    chosen = {choice["bound_by"] for choice in CHOICES if "error" not in choice}
    assert chosen == {"offer", "bundle", "memory", "time", "traffic"}


def test_each_limit_makes_a_device_decline_somewhere() -> None:
    declined = [choice["error"]["what"] for choice in CHOICES if "error" in choice]
    lacking = {what.rpartition(" ")[2] for what in declined if "for lack of" in what}
    assert lacking == {"memory", "time", "traffic"}
    codes = {choice["error"]["code"] for choice in CHOICES if "error" in choice}
    assert codes == {"device_too_small", "rank_out_of_range", "bundle_invalid"}


def test_each_concession_is_made_somewhere() -> None:
    made = " ".join(word for choice in CHOICES if "error" not in choice for word in choice["concessions"])
    for words in ("there are no more", "rows, for want of memory", "for want of time", "tokens, for want of"):
        assert words in made


def test_cases_have_names_of_their_own() -> None:
    for file, cases in (("planning", "cases"), ("conditions", "cases"), ("machines", "machines")):
        names = [case["name"] for case in json.loads((FOLDER / f"{file}.json").read_text())[cases]]
        assert len(set(names)) == len(names)
