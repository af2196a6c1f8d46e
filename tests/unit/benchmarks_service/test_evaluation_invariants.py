"""Each invariant of evaluations, and a table that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from evaluated_history import FIGURES, REPORTS, history

from benchmarks.service.asking import IMPOSSIBLE
from benchmarks.service.evaluated import at_once, due, evaluations, figures
from benchmarks.service.records import Records
from benchmarks.service.sent import scored
from hetlora.messages.evaluation import EvaluationReport

Break = Callable[[Records], object]


def violations(records: Records) -> list[str]:
    return [*due(records), *evaluations(records), *figures(records, REPORTS), *at_once(records)]


def part(records: Records, name: str) -> dict[str, Any]:
    return next(row for row in records.evaluation_assignments if row["id"] == name)


def test_what_a_service_may_leave_breaks_no_invariant() -> None:
    assert violations(history()) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(
            lambda records: records.evaluations.pop(), "round 3 was to be evaluated", id="version without"
        ),
        pytest.param(
            lambda records: records.adapter_versions.pop(), "round 3 was not due", id="version that is lost"
        ),
        pytest.param(
            lambda records: records.evaluations[0].update(ended_at=None), "without a time", id="no end"
        ),
        pytest.param(
            lambda records: records.evaluations[1].update(ended_at="10:05"), "without a time", id="end"
        ),
        pytest.param(
            lambda records: records.runs[0].update(state="stopped"),
            "round 3 is open, and its run was stopped",
            id="outlives its run",
        ),
        pytest.param(
            lambda records: records.evaluations[0].update(devices=2),
            "is of 2 devices, and 3 have a place",
            id="too many devices",
        ),
        pytest.param(
            lambda records: part(records, "d").update(device_id="device of a"),
            "device of a is 2 times in evaluation round 1",
            id="device twice",
        ),
        pytest.param(
            lambda records: part(records, "f").update(run_id="other"), "of another run", id="another run"
        ),
        pytest.param(
            lambda records: part(records, "f").update(lease_expires_at="10:21"),
            "lease of evaluation assignment f outlives",
            id="lease",
        ),
        pytest.param(
            lambda records: part(records, "d").update(state="offered"),
            "d is offered, and its evaluation has ended",
            id="live after the end",
        ),
        pytest.param(
            lambda records: part(records, "a").update(rank=None), "never sent an adapter", id="no adapter"
        ),
        pytest.param(
            lambda records: part(records, "a").update(report={"loss": 1.0}),
            "a keeps a report, accepted in an evaluation that is closed",
            id="report kept",
        ),
        pytest.param(
            lambda records: part(records, "f").update(report={"loss": 1.0}),
            "f keeps a report, started",
            id="report of nobody",
        ),
        pytest.param(
            lambda records: part(records, "e").update(report=None),
            "e is accepted without a report",
            id="report lost",
        ),
        pytest.param(
            lambda records: records.evaluations.pop(0), "round 1 is not there", id="evaluation lost"
        ),
        pytest.param(
            lambda records: records.evaluations[0].update(figures=None), "has no figures", id="no figures"
        ),
        pytest.param(
            lambda records: records.evaluations[1].update(figures=FIGURES),
            "open with 1 reports, and has figures",
            id="figures before the end",
        ),
        pytest.param(
            lambda records: part(records, "c").update(state="expired"),
            "closed with 2 reports, and has figures",
            id="figures of too few",
        ),
        pytest.param(
            lambda records: part(records, "a").update(id="z"),
            "that no device sent: ['z']",
            id="nobody's report",
        ),
    ],
)
def test_broken_table_is_seen(spoil: Break, told: str) -> None:
    records = history()
    spoil(records)
    assert told in "\n".join(violations(records))


@pytest.mark.parametrize("name", [*FIGURES])
def test_figure_that_the_reports_do_not_give_is_seen(name: str) -> None:
    records = history()
    records.evaluations[0]["figures"][name] += 1e-6
    (violation,) = violations(records)
    assert violation.startswith(f"{name} of evaluation round 1 is ")


def test_figures_without_what_devices_sent_are_not_reckoned_again() -> None:
    records = history()
    records.evaluations[0]["figures"]["loss"] = 9.0
    assert [*figures(records, None)] == []


@pytest.mark.parametrize("order", [(2, 0, 1, 3, 4), (2, 3, 0, 4, 1), (0, 2, 1, 3, 4)])
def test_device_that_trains_and_evaluates_at_one_time_is_seen(order: tuple[int, ...]) -> None:
    records = history()
    moves = [*records.transitions]
    records.transitions[:] = [moves[place] for place in order]
    (violation,) = at_once(records)
    assert violation.startswith("device device of a was given ")


def test_device_that_is_given_the_next_work_after_its_last_is_left_alone() -> None:
    records = history()
    records.transitions[:] = [*records.transitions[2:], *records.transitions[:2]]
    assert [*at_once(records)] == []


@pytest.mark.parametrize("changed", [one for one in IMPOSSIBLE if one != {"correct_count": None}])
def test_impossible_report_is_no_message(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"example_count|correct_count|loss"):
        EvaluationReport.model_validate({**scored("assignment").model_dump(), **changed})
