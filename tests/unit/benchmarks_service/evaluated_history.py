"""The tables of a run of four rounds with two evaluations: one has ended, one is open."""

from __future__ import annotations

from typing import Any

from benchmarks.service.records import Records
from hetlora.messages.evaluation import EvaluationReport

# By the assignments that were accepted in the evaluation that ended.
REPORTS = {
    "a": EvaluationReport(example_count=10, loss=1.0, correct_count=5),
    "b": EvaluationReport(example_count=10, loss=2.0, correct_count=5),
    "c": EvaluationReport(example_count=20, loss=3.0, correct_count=20),
}
FIGURES = {
    "example_count": 40,
    "loss": 2.25,  # (10 + 20 + 60) / 40
    "device_loss": 2.0,
    "device_loss_deviation": (2 / 3) ** 0.5,
    "accuracy": 0.75,
    "device_accuracy": 2 / 3,  # of 1/2, 1/2 and 1
    "device_accuracy_deviation": (1 / 18) ** 0.5,
}
SETTINGS = {"rounds": 100, "evaluation": {"every_rounds": 2, "minimum_reports": 3}}


def history() -> Records:
    """Rows that no invariant of evaluations objects to."""
    ended = {"ended_at": "10:05", "figures": dict(FIGURES), "window_closes_at": "10:10"}
    going_on = {"ended_at": None, "figures": None, "window_closes_at": "10:20"}
    parts = [_part(name, "round 1", "accepted") for name in REPORTS]
    parts += [
        _part("d", "round 1", "failed"),
        _part("e", "round 3", "accepted", report={"loss": 1.0}),
        _part("f", "round 3", "started"),
    ]
    return Records(
        devices=[],
        runs=[{"id": "run", "state": "running", "settings": SETTINGS}],
        rounds=[],
        assignments=[{"id": "training", "device_id": "device of a", "state": "accepted"}],
        adapter_versions=[
            {"id": f"round {index}", "run_id": "run", "round_index": index} for index in range(-1, 4)
        ],
        handouts=[],
        uploads=[],
        upload_parts=[],
        evaluations=[
            {"id": "round 1", "state": "closed", "run_id": "run", "devices": 3, **ended},
            {"id": "round 3", "state": "open", "run_id": "run", "devices": 3, **going_on},
        ],
        evaluation_assignments=parts,
        transitions=[
            _moved("assignment", "training", None, "offered"),
            _moved("assignment", "training", "offered", "accepted"),
            _moved("evaluation_assignment", "a", None, "offered"),
            _moved("evaluation_assignment", "a", "offered", "started"),
            _moved("evaluation_assignment", "a", "started", "accepted"),
        ],
    )


def _part(name: str, evaluation: str, state: str, report: object = None) -> dict[str, Any]:
    return {
        "id": name,
        "state": state,
        "evaluation_id": evaluation,
        "run_id": "run",
        "device_id": f"device of {name}",
        "lease_expires_at": "10:04",
        "rank": 2,
        "adapter_sha256": "0" * 64,
        "report": report,
    }


def _moved(subject: str, name: str, old: str | None, new: str) -> dict[str, Any]:
    return {"subject": subject, "subject_id": name, "old": old, "new": new}
