"""The table of a run's evaluations: one line an adapter version that was due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hetlora.cli.output import plain
from hetlora.messages.evaluation import EvaluationFigures
from hetlora.messages.management import AdapterVersionStatus

_COLUMNS: Final[dict[str, Literal["left", "right"]]] = {
    "round": "right",
    "reports": "right",
    "examples": "right",
    "loss": "right",
    "accuracy": "right",
    "by device": "right",
    "evaluation": "left",
}


def accuracies_of(versions: Sequence[AdapterVersionStatus]) -> dict[int, float]:
    """Accuracies on held-out examples by round index, of the versions that have one."""
    evaluated = {own.round_index: own.evaluation.figures for own in versions if own.evaluation is not None}
    return {
        index: figures.accuracy
        for index, figures in evaluated.items()
        if figures is not None and figures.accuracy is not None
    }


def evaluation_table(versions: Sequence[AdapterVersionStatus]) -> Table:
    """Draw the evaluations of versions, oldest first."""
    caption = "loss, accuracy: over all examples; by device: mean and standard deviation among devices"
    table = Table(caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    for heading, justify in _COLUMNS.items():
        table.add_column(heading, justify=justify, no_wrap=heading != "evaluation")
    for version in sorted(versions, key=lambda own: own.round_index):
        status = version.evaluation
        if status is not None:
            told = [str(version.round_index + 1), f"{status.reports} of {status.devices}"]
            table.add_row(*told, *_cells(status.figures), plain(f"{status.state}: {status.reason}"))
    return table


def _cells(figures: EvaluationFigures | None) -> list[str]:
    if figures is None:
        return ["", "", "", ""]
    of_devices = f"{figures.device_loss:.3f} ± {figures.device_loss_deviation:.3f}"
    if figures.device_accuracy is not None:
        of_devices = f"{figures.device_accuracy:.1%} ± {figures.device_accuracy_deviation:.1%}"
    accuracy = "" if figures.accuracy is None else f"{figures.accuracy:.1%}"
    return [str(figures.example_count), f"{figures.loss:.3f}", accuracy, of_devices]
