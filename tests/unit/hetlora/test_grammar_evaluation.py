"""What runs ask of evaluations, and what devices report of them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hetlora.messages.evaluation import EvaluationReport, EvaluationSettings
from hetlora.messages.management import RunSettings
from hetlora.states import AssignmentState, EvaluationAssignmentState, is_final


def test_run_has_no_evaluation_unless_asked() -> None:
    assert RunSettings(goal_count=1, max_rank=1).evaluation is None


def test_figures_need_no_more_reports_than_are_wanted() -> None:
    assert EvaluationSettings(devices=3).minimum_reports == 3
    with pytest.raises(ValidationError, match="minimum_reports 3 is above devices 2"):
        EvaluationSettings(devices=2)


@pytest.mark.parametrize(
    "settings",
    [
        {"minimum_reports": 1},
        {"devices": 0},
        {"every_rounds": 0},
        {"window_seconds": 0},
        {"lease_seconds": 0.5},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        EvaluationSettings.model_validate({"devices": 5} | settings)


def test_no_more_are_right_than_there_are() -> None:
    assert EvaluationReport(example_count=3, loss=0.5, correct_count=3).correct_count == 3
    with pytest.raises(ValidationError, match="correct_count 4 is above example_count 3"):
        EvaluationReport(example_count=3, loss=0.5, correct_count=4)


def test_end_of_an_evaluation_has_a_word_that_a_receipt_knows() -> None:
    ends = [state for state in EvaluationAssignmentState if is_final(state)]
    assert [AssignmentState(state) for state in ends] == ["accepted", "failed", "expired", "aborted"]
