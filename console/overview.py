"""The first page: runs that go on, and what changed last."""

from __future__ import annotations

from nicegui import ui

from console.frame import CHANGES, change_rows, frame, read, table
from console.sessions import Session
from hetlora.messages.fleet import PopulationStatus, Transition
from hetlora.messages.management import RunStatus
from hetlora.states import is_final

NEWEST = {"newest_first": "true", "limit": "20"}


async def overview(session: Session) -> None:
    """Populations, the newest runs that have not ended, the newest changes of state."""
    with frame(session, "Overview"):
        runs = await read(lambda: session.operator.page("/runs", RunStatus, NEWEST))
        if runs is None:
            return
        going = [run for run in runs.items if not is_final(run.state)]
        for run in going:
            share = run.rounds_committed / run.settings.rounds
            with ui.card().classes("w-full"):
                ui.link(f"Run {run.run_id}", f"/runs/{run.run_id}").classes("wrap")
                ui.label(f"{run.state}: {run.rounds_committed} of {run.settings.rounds} rounds")
                ui.linear_progress(share, show_value=False).props(f'aria-label="rounds of {run.run_id}"')
        if not going:
            ui.label("No run goes on.")
        populations = await read(lambda: session.operator.page("/populations", PopulationStatus))
        if populations is not None:
            rows = [{"population": own.name, "devices": own.devices} for own in populations.items]
            table("Populations", ["population", "devices"], rows, "There is no population yet.")
        changes = await read(lambda: session.operator.page("/transitions", Transition, NEWEST))
        if changes is not None:
            table("Recent changes of state", CHANGES, change_rows(changes.items), "Nothing changed yet.")
