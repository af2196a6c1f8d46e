"""The table of a run in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest
from rich.console import Console

from hetlora.cli.run_table import round_table
from hetlora.messages.management import AssignmentStatus, RunSettings, RunStatus
from hetlora.messages.rules import ResidualExactRule
from hetlora.states import AssignmentState, RunState

VARIANT = "0123456789abcdef" * 4


def table_of(settings: RunSettings) -> str:
    run = RunStatus(
        run_id="run-1",
        population="keyboard",
        bundle="0" * 64,
        state=RunState.RUNNING,
        reason="",
        settings=settings,
        rounds_committed=0,
        adapter_version=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assignment = AssignmentStatus(
        assignment_id="assignment-1",
        device_id="device-1",
        device_name="phone",
        round_index=0,
        attempt=0,
        state=AssignmentState.ACCEPTED,
        reason="",
        rank=2,
        variant=VARIANT,
        updated_rank=2,
        aggregation_weight=None,
        staleness=17,
        first_loss=None,
        last_loss=None,
        training_seconds=None,
        peak_memory_bytes=None,
        downloaded_bytes=None,
        uploaded_bytes=None,
    )
    console = Console(width=100)
    with console.capture() as capture:
        console.print(round_table(run, [], [assignment]))
    return capture.get()


@pytest.mark.parametrize(("mode", "shown"), [("synchronous", False), ("buffered", True)])
def test_staleness_is_shown_of_buffered_runs(mode: Literal["synchronous", "buffered"], shown: bool) -> None:
    table = table_of(RunSettings(mode=mode, goal_count=1, max_rank=2, rule=ResidualExactRule()))
    assert ("17" in table, "stale" in table) == (shown, shown)


@pytest.mark.parametrize(("variants", "shown"), [((), False), ((VARIANT,), True)])
def test_variant_is_shown_of_runs_that_have_some(variants: tuple[str, ...], shown: bool) -> None:
    table = table_of(RunSettings(goal_count=1, max_rank=2, variants=variants))
    assert ("0123456789ab" in table, "variant" in table) == (shown, shown)
