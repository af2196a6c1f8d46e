"""The table of a run's evaluations in words."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from hetlora.cli.evaluation_table import accuracies_of, evaluation_table
from hetlora.messages.evaluation import EvaluationFigures, EvaluationStatus
from hetlora.messages.management import AdapterVersionStatus
from hetlora.states import AdapterVersionState, EvaluationState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIGURES = EvaluationFigures(
    example_count=40,
    loss=1.25,
    device_loss=1.5,
    device_loss_deviation=0.5,
    accuracy=0.6,
    device_accuracy=0.7,
    device_accuracy_deviation=0.2,
)


def version(round_index: int, figures: EvaluationFigures | None, reason: str) -> AdapterVersionStatus:
    evaluation = EvaluationStatus(
        state=EvaluationState.CLOSED,
        reason=reason,
        devices=10,
        reports=9,
        figures=figures,
        window_closes_at=NOW,
        ended_at=NOW,
    )
    return AdapterVersionStatus(
        version=f"run-1-v{round_index + 1:06}",
        run_id="run-1",
        round_index=round_index,
        state=AdapterVersionState.CANDIDATE,
        sha256="0" * 64,
        size_bytes=1,
        update_count=1,
        evaluation=evaluation,
        created_at=NOW,
    )


VERSIONS = [
    version(5, None, "report window closed with 9 of 10 reports; 10 needed for figures"),
    version(3, FIGURES, "window"),
    version(4, FIGURES, "").model_copy(update={"evaluation": None}),
]


def test_versions_that_were_evaluated_are_shown_with_their_figures_or_why_there_are_none() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(evaluation_table(VERSIONS))
    words = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert " ".join(words[2]) == "4 9 of 10 40 1.250 60.0% 70.0% ± 20.0% closed: window"
    assert words[3][:5] == ["6", "9", "of", "10", "closed:"]
    assert "10 needed for figures" in capture.get()
    assert [row[0] for row in words[2:4]] == ["4", "6"]


def test_loss_among_devices_is_shown_where_there_are_no_classes() -> None:
    text = FIGURES.model_copy(update={"accuracy": None, "device_accuracy": None})
    console = Console(width=200)
    with console.capture() as capture:
        console.print(evaluation_table([version(0, text, "window")]))
    assert "1.500 ± 0.500" in capture.get()


def test_accuracies_are_of_versions_that_have_one() -> None:
    assert accuracies_of(VERSIONS) == {3: 0.6}
