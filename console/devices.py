"""The devices, page by page, and all of them as CSV."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from nicegui import ui

from console.frame import ROWS, frame, moment, next_page, read, table
from console.sessions import Session
from hetlora.messages.fleet import DeviceDetails
from hetlora.states import DeviceState

NAMES: Final = ["id", "name", "population", "state", "cores", "memory MB", "labels", "last contact"]
ANY: Final = "any"


async def devices(session: Session, population: str, state: str, cursor: str | None) -> None:
    """The devices of a population and a state, or of all; in the order of their ids."""
    asked = {"population": population, "state": state}
    filters = {name: value for name, value in asked.items() if value}
    query = {"limit": str(ROWS), **filters} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Devices"):
        with ui.row().classes("items-center"):
            of = ui.input("Population", value=population)
            words = [ANY, *map(str, DeviceState)]
            standing = ui.select(words, label="State", value=state or ANY).classes("w-40")

            def show() -> None:
                told = {"population": of.value, "state": "" if standing.value == ANY else standing.value}
                ui.navigate.to(f"/devices?{urlencode(told)}")

            of.on("keydown.enter", show)
            ui.button("Show", on_click=show)
            ui.link("All as CSV", f"/devices.csv?{urlencode(filters)}")
        page = await read(lambda: session.operator.page("/devices", DeviceDetails, query))
        if page is None:
            return
        rows = [device_row(own) for own in page.items]
        table("Devices", NAMES, rows, "No device is here.", lambda row: f"/devices/{row['id']}")
        next_page("/devices", filters | ({"cursor": cursor} if cursor else {}), page.next_cursor)


def device_row(own: DeviceDetails) -> dict[str, object]:
    """A device as a row of a table."""
    can = own.capabilities
    return {
        "id": own.device_id,
        "name": own.name,
        "population": own.population,
        "state": str(own.state),
        "cores": "" if can is None else can.cores,
        "memory MB": "" if can is None else round(can.memory_total_bytes / 1e6),
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(own.labels.items())),
        "last contact": moment(own.last_contact_at),
    }
