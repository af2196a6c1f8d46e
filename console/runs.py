"""The runs, and the form that makes one."""

from __future__ import annotations

import asyncio
import tomllib

from nicegui import ui
from pydantic import ValidationError

from console.frame import ROWS, frame, moment, next_page, read, table
from console.sessions import Session
from hetlora.errors import HetloraError, faults_in_words
from hetlora.messages.management import RunCreate, RunStatus
from hetlora.messages.operators import OperatorRole

EXAMPLE = "rounds = 5\ngoal_count = 3\nmax_rank = 8\n"


async def runs(session: Session, cursor: str | None) -> None:
    """The runs, newest first, and below them the form."""
    query = {"newest_first": "true", "limit": str(ROWS)} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Runs"):
        page = await read(lambda: session.operator.page("/runs", RunStatus, query))
        if page is None:
            return
        names = ["run", "name", "population", "state", "rounds", "rule", "created"]
        rows = [
            {
                "run": run.run_id,
                "name": run.name or "",
                "population": run.population,
                "state": str(run.state),
                "rounds": f"{run.rounds_committed} of {run.settings.rounds}",
                "rule": run.settings.rule.name,
                "created": moment(run.created_at),
            }
            for run in page.items
        ]
        empty = "There is no run yet: make one below."
        table("All runs", names, rows, empty, lambda row: f"/runs/{row['run']}")
        next_page("/runs", {"cursor": cursor} if cursor else {}, page.next_cursor)
        _form(session)


def run_of(population: str, bundle: str, settings: str) -> RunCreate:
    """The message of what was typed.

    Raises:
        ValueError: settings that are no TOML, or a field that does not fit, in words.
    """
    try:
        asked = {"population": population, "bundle": bundle, "settings": tomllib.loads(settings)}
        return RunCreate.model_validate(asked)
    except ValidationError as error:
        raise ValueError(faults_in_words(error.errors())) from error


def _form(session: Session) -> None:
    refusal = session.refusal(OperatorRole.OPERATOR)
    with ui.card().classes("w-full"):
        with ui.element("h2").classes("text-xl"):
            ui.label("New run")
        population = ui.input("Population").classes("w-full")
        bundle = ui.input("Digest of the bundle").classes("w-full")
        settings = ui.textarea("Settings, as TOML", value=EXAMPLE).classes("w-full font-mono")
        told = ui.label().props("role=alert").classes("wrap")

        async def create() -> None:
            try:
                message = run_of(population.value or "", bundle.value or "", settings.value or "")
                made = await asyncio.to_thread(session.operator.create_run, message)
            except (ValueError, HetloraError) as error:
                told.text = str(error)
            else:
                ui.navigate.to(f"/runs/{made.run_id}")

        button = ui.button("Create run", on_click=create)
        if refusal is not None:
            button.disable()
            told.text = refusal
