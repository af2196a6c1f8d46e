"""What pages make of the service's answers, and of what is typed; nothing here needs a browser."""

from __future__ import annotations

import csv

import pytest

pytest.importorskip("nicegui")

from console.devices import device_lines
from console.runs import EXAMPLE, run_of
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
    )

    heading, row = csv.reader(device_lines([device]))

    assert heading == ["name", "id", "population", "state", "cores", "memory MB", "last contact"]
    assert row == [f'\'{start}cmd("x"),1', "d1", "demo", "accepted", "", "", ""]


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
