"""The table of a run: one line a device in the newest round, one line a round before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hetlora.cli.output import plain
from hetlora.messages.management import AssignmentStatus, RoundStatus, RunStatus
from hetlora.states import RoundState

_COLUMNS: Final[dict[str, Literal["left", "right"]]] = {
    "device": "left",
    "state": "left",
    "rank": "right",
    "loss": "right",
    "down": "right",
    "up": "right",
    "s": "right",
    "weight": "right",
}


def round_table(
    run: RunStatus,
    rounds: Sequence[RoundStatus],
    assignments: Sequence[AssignmentStatus],
    accuracies: Mapping[int, float] | None = None,
) -> Group:
    """Draw the devices of the newest round above the list of rounds; `accuracies` are by round index."""
    return Group(_device_table(run, assignments), _rounds_table(run, rounds, accuracies or {}))


def _device_table(run: RunStatus, assignments: Sequence[AssignmentStatus]) -> Table:
    round_index = max((status.round_index for status in assignments), default=0)
    title = f"run {run.run_id} ({run.state}), round {round_index + 1} of {run.settings.rounds}"
    caption = "loss: first and last batch; down, up: MB; weight: in the aggregate"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    buffered, has_variants = run.settings.mode == "buffered", bool(run.settings.variants)
    for heading, justify in _COLUMNS.items():
        table.add_column(heading, justify=justify, no_wrap=True)
    if buffered:
        table.add_column("stale", justify="right", no_wrap=True)
    if has_variants:
        table.add_column("variant", no_wrap=True)
    for status in sorted(assignments, key=lambda status: (status.device_name, status.assignment_id)):
        table.add_row(
            plain(status.device_name or status.device_id[:8]),
            str(status.state),
            _ranks(status.rank, status.updated_rank),
            "" if status.first_loss is None else f"{status.first_loss:.2f}→{status.last_loss:.2f}",
            _megabytes(status.downloaded_bytes),
            _megabytes(status.uploaded_bytes),
            "" if status.training_seconds is None else f"{status.training_seconds:.1f}",
            "" if status.aggregation_weight is None else f"{status.aggregation_weight:.3f}",
            *(["" if status.staleness is None else str(status.staleness)] if buffered else []),
            *([(status.variant or "")[:12]] if has_variants else []),
        )
    return table


def _rounds_table(run: RunStatus, rounds: Sequence[RoundStatus], accuracies: Mapping[int, float]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    headings = ["round", "state", "accepted", "seconds"] + (["held-out accuracy"] if accuracies else [])
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "state" else "right")
    if -1 in accuracies:
        table.add_row("0", "untrained", "", "", f"{accuracies[-1]:.1%}")
    for status in rounds:
        seconds = (status.ended_at - status.started_at).total_seconds() if status.ended_at else None
        accuracy = accuracies.get(status.round_index) if status.state == RoundState.COMMITTED else None
        reason = f": {status.reason}" if status.state == RoundState.ABANDONED else ""
        cells: list[Text | str] = [
            str(status.round_index + 1),
            plain(f"{status.state}{reason}"),
            f"{status.accepted} of {run.settings.goal_count}",
            "" if seconds is None else f"{seconds:.1f}",
        ]
        table.add_row(*cells, *([] if not accuracies else ["" if accuracy is None else f"{accuracy:.1%}"]))
    return table


def _ranks(taken: int | None, updated: int | None) -> str:
    if taken is None:
        return ""
    return str(taken) if updated in (None, taken) else f"{taken}→{updated}"


def _megabytes(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.2f}"
