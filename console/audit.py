"""The audit log, for admins."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from console.frame import ROWS, frame, moment, next_page, read, table
from console.sessions import Session
from hetlora.messages.operators import AuditEntry


async def audit(session: Session, subject: str, cursor: str | None) -> None:
    """What operators asked to be written, newest first; of one subject where that is asked for."""
    filters = {"subject": subject} if subject else {}
    query = {"limit": str(ROWS), **filters} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Audit log"):
        with ui.row().classes("items-center"):
            asked = ui.input("About", value=subject)
            ui.button("Show", on_click=lambda: ui.navigate.to(f"/audit?subject={quote(asked.value)}"))
        page = await read(lambda: session.operator.page("/audit", AuditEntry, query))
        if page is None:
            return
        rows = [
            {
                "at": moment(own.at),
                "who": own.key_name,
                "action": own.action,
                "about": own.subject,
                "status": "cut off" if own.status is None else own.status,
                "from": own.source or "",
            }
            for own in page.items
        ]
        table("Entries", ["at", "who", "action", "about", "status", "from"], rows, "No entry.")
        next_page("/audit", filters | ({"cursor": cursor} if cursor else {}), page.next_cursor)
