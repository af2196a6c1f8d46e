"""Updates that screens took out of rounds, and what an operator makes of them."""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import quote

from nicegui import ui

from console.frame import ROWS, confirm, frame, moment, next_page, offered, read, table
from console.run_figures import short
from console.sessions import Session
from hetlora.messages.operators import OperatorRole
from hetlora.messages.quarantine import QuarantinedUpdate, QuarantineVerb
from hetlora.states import QuarantineState

VERBS: Final[dict[str, QuarantineVerb]] = {"Release": "release", "Confirm": "confirm"}
NAMES: Final = ["update", "device", "run", "round", "state", "screen", "finding", "at"]


async def quarantine(session: Session, state: str, cursor: str | None) -> None:
    """Quarantined updates, newest first, of one state where that is asked for."""
    filters = {"state": state} if state else {}
    query = {"limit": str(ROWS), **filters} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Quarantine"):
        with ui.element("nav").props('aria-label="Updates by state"').classes("flex gap-4"):
            ui.link("all", "/quarantine")
            for own in QuarantineState:
                link = ui.link(str(own), f"/quarantine?state={own}")
                link.props('aria-current="true"' if own == state else "")
        page = await read(lambda: session.operator.page("/quarantine", QuarantinedUpdate, query))
        if page is None:
            return
        rows = [
            {
                "update": own.assignment_id,
                "device": own.device_name or own.device_id,
                "run": own.run_id,
                "round": own.round_index + 1,
                "state": str(own.state),
                "screen": own.screen,
                "finding": own.finding,
                "at": moment(own.quarantined_at),
            }
            for own in page.items
        ]
        empty = "Nothing is in quarantine. A run with screens puts there what stands apart from all others."
        table("Updates", NAMES, rows, empty, lambda row: f"/quarantine/{quote(str(row['update']), safe='')}")
        next_page("/quarantine", filters | ({"cursor": cursor} if cursor else {}), page.next_cursor)


async def quarantined(session: Session, assignment_id: str) -> None:
    """One update: why it was taken out, and the buttons that decide about it."""
    with frame(session, "Quarantined update"):
        found = await read(lambda: session.operator.quarantine.one(assignment_id))
        if found is None:
            return
        ui.label(f"{found.state}: {found.reason}").props("role=status").classes("wrap")
        held = found.state is QuarantineState.HELD

        def ask(name: str) -> None:
            def act(reason: str) -> None:
                session.operator.quarantine.decide(assignment_id, VERBS[name], reason)

            question = f"{name} the update of device {found.device_name or found.device_id}?"
            confirm(question, name, act, reason=True)

        offered(session, OperatorRole.OPERATOR, {name: partial(ask, name) for name in VERBS if held})
        with ui.row():
            ui.link("Its device", f"/devices/{found.device_id}")
            ui.link("Its run", f"/runs/{quote(found.run_id, safe='')}")
        told = {
            "screen": found.screen,
            "finding": found.finding,
            **{name: short(value) for name, value in found.figures.items()},
            "round": f"{found.round_index + 1}, attempt {found.attempt}",
            "rank": found.rank,
            "examples": found.example_count,
            "bytes": found.size_bytes,
            "digest": found.sha256,
            "still kept": "yes" if found.kept else "no",
            "at": moment(found.quarantined_at),
        }
        rows = [{"what": name, "told": str(value)} for name, value in told.items()]
        table("Why", ["what", "told"], rows, "")
