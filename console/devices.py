"""The devices, page by page, and all of them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from nicegui import ui

from console.frame import ROWS, frame, moment, next_page, read, table
from console.sessions import Session
from hetlora.messages.fleet import DeviceDetails

NAMES = ["name", "id", "population", "state", "cores", "memory MB", "last contact"]


async def devices(session: Session, population: str, cursor: str | None) -> None:
    """The devices of a population, or all; in the order of their ids."""
    filters = {"population": population} if population else {}
    query = {"limit": str(ROWS), **filters} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Devices"):
        with ui.row().classes("items-center"):
            asked = ui.input("Population", value=population)
            show = ui.button("Show", on_click=lambda: ui.navigate.to(f"/devices?population={asked.value}"))
            asked.on("keydown.enter", lambda: show.run_method("click"))
            ui.link("All as CSV", f"/devices.csv?population={population}")
        page = await read(lambda: session.operator.page("/devices", DeviceDetails, query))
        if page is None:
            return
        table("Devices", NAMES, [device_row(own) for own in page.items], "No device is here.")
        next_page("/devices", filters | ({"cursor": cursor} if cursor else {}), page.next_cursor)


def device_row(own: DeviceDetails) -> dict[str, object]:
    """A device as a row of a table."""
    can = own.capabilities
    return {
        "name": own.name,
        "id": own.device_id,
        "population": own.population,
        "state": str(own.state),
        "cores": "" if can is None else can.cores,
        "memory MB": "" if can is None else round(can.memory_total_bytes / 1e6),
        "last contact": moment(own.last_contact_at),
    }


def device_lines(found: Iterable[DeviceDetails]) -> Iterator[str]:
    """Devices as lines of CSV, read as they are taken.

    Names are devices' own words: one that a spreadsheet would take for a formula gets a quote before it.
    """
    yield _line(NAMES)
    for own in found:
        yield _line([_harmless(str(cell)) for cell in device_row(own).values()])


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()
