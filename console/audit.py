"""The audit log, for admins."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from nicegui import ui

from console.frame import ROWS, frame, moment, next_page, read, table
from console.sessions import Session
from hetlora.messages.operators import AuditEntry

NAMES: Final = ["at", "who", "action", "about", "status", "from"]


async def audit(session: Session, subject: str, cursor: str | None) -> None:
    """What operators asked to be written, newest first; of one subject where that is asked for."""
    filters = {"subject": subject} if subject else {}
    query = {"limit": str(ROWS), **filters} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Audit log"):
        with ui.row().classes("items-center"):
            asked = ui.input("About", value=subject)
            show = ui.button("Show", on_click=lambda: ui.navigate.to(f"/audit?subject={quote(asked.value)}"))
            asked.on("keydown.enter", lambda: show.run_method("click"))
            ui.link("All as CSV", f"/audit.csv?subject={quote(subject)}")
        page = await read(lambda: session.operator.page("/audit", AuditEntry, query))
        if page is None:
            return
        rows = [audit_row(own) for own in page.items]
        table("Entries", NAMES, rows, "No entry.")
        next_page("/audit", filters | ({"cursor": cursor} if cursor else {}), page.next_cursor)


def audit_row(own: AuditEntry) -> dict[str, object]:
    """An entry as a row of a table."""
    return {
        "at": moment(own.at),
        "who": own.key_name,
        "action": own.action,
        "about": own.subject,
        "status": "cut off" if own.status is None else own.status,
        "from": own.source or "",
    }
