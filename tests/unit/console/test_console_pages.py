"""What pages make of the service's answers, and of what is typed; nothing here needs a browser."""

from __future__ import annotations

import asyncio
import csv
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nicegui")

from console.csv_text import csv_lines
from console.devices import NAMES, device_row
from console.frame import done
from console.run_figures import ranks_by_round
from console.runs import EXAMPLE, run_of
from hetlora.messages.figures import RoundFigures
from hetlora.messages.fleet import DeviceDetails
from hetlora.states import DeviceState

DIGEST = "0" * 64


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_name_that_is_a_formula_is_a_text_in_the_file(start: str) -> None:
    device = DeviceDetails(
        device_id="d1",
        name=f'{start}cmd("x"),1',
        population="demo",
        state=DeviceState.ACCEPTED,
        capabilities=None,
        last_contact_at=None,
        labels={"site": "lab"},
    )

    heading, row = csv.reader(csv_lines(NAMES, [device_row(device)]))

    assert heading == ["id", "name", "population", "state", "cores", "memory MB", "labels", "last contact"]
    assert row == ["d1", f'\'{start}cmd("x"),1', "demo", "accepted", "", "", "site=lab", ""]


def test_each_rank_is_counted_in_each_round() -> None:
    def of(round_index: int, **ranks: int) -> RoundFigures:
        told = [{"rank": int(rank[1:]), "updates": count} for rank, count in ranks.items()]
        at = "2026-11-20T12:00:00Z"
        return RoundFigures.model_validate(
            {"round_index": round_index, "attempt": 0, "state": "committed", "version": "v", "ranks": told}
            | dict.fromkeys(("asked", "accepted", "downloaded_bytes", "uploaded_bytes"), 3)
            | dict.fromkeys(("started_at", "ended_at"), at)
            | dict.fromkeys(("training_seconds", "first_loss", "last_loss"))
            | dict.fromkeys(("evaluation_loss", "evaluation_accuracy", "privacy"))
        )

    counted = ranks_by_round([of(0, r4=2, r8=1), of(1, r8=3)])

    assert counted == {"rank 4": [(1, 2), (2, 0)], "rank 8": [(1, 1), (2, 3)]}


def test_settings_that_the_form_starts_with_make_a_run() -> None:
    run = run_of("demo", DIGEST, EXAMPLE)

    assert (run.settings.rounds, run.settings.goal_count, run.settings.max_rank) == (5, 3, 8)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("rounds = ", "Invalid value"),
        ("goal_count = 3\nmax_rank = 8\nround = 2", "round"),
        ("max_rank = 8", "goal_count"),
    ],
)
def test_settings_that_do_not_fit_are_told_by_their_name(settings: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run_of("demo", DIGEST, settings)


def test_value_that_no_message_takes_is_told_in_the_dialog() -> None:
    told: Any = SimpleNamespace(text="")

    asyncio.run(done(lambda: int("a reason that is too long"), told))

    assert told.text.startswith("does not fit: ")
