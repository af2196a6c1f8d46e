"""What all pages share: landmarks, the way between pages, tables, and how faults are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import urlencode

from nicegui import ui

from console.sessions import Session
from hetlora.errors import HetloraError

Got = TypeVar("Got")
PAGES: Final = {"/": "Overview", "/runs": "Runs", "/devices": "Devices", "/audit": "Audit log"}
ROWS: Final = 50  # of a table on a page
_STYLE: Final = """<style>
.skip { position: absolute; left: -99rem } .skip:focus { left: 1rem; top: 1rem; z-index: 9999 }
:focus-visible { outline: 3px solid #1976d2 !important; outline-offset: 2px }
body.body--dark a { color: #90caf9 } .q-table__container { max-width: calc(100vw - 2rem) }
.wrap { overflow-wrap: anywhere }
</style>"""


@contextmanager
def frame(session: Session, title: str) -> Iterator[None]:
    """A page with its header, its heading and the place for what it shows."""
    ui.colors(primary="#1565c0")  # white words on it have a contrast of 5.7
    ui.page_title(f"{title} - hetlora")
    ui.add_head_html(_STYLE)
    ui.html('<a class="skip" href="#content">To the content</a>', sanitize=False)
    with ui.header().classes("items-center gap-4 flex-wrap"):
        with ui.element("nav").props('aria-label="Pages"').classes("flex flex-wrap gap-4"):
            for path, name in PAGES.items():
                link = ui.link(name, path).classes("text-white")
                if name == title:
                    link.props('aria-current="page"').classes("font-bold")
        ui.label(f"{session.holder.name}, {session.holder.role}").classes("ml-auto")
        ui.html(
            '<form method="post" action="/sign-out"><button class="underline">Sign out</button></form>',
            sanitize=False,
        )
    # The layout around it is the page's `main` already.
    with ui.element("div").props('id="content" tabindex="-1"').classes("w-full flex flex-col gap-4"):
        with ui.element("h1").classes("text-2xl"):
            ui.label(title)
        yield


async def read(ask: Callable[[], Got]) -> Got | None:
    """What the service answers; where it fails, the page says so and None comes back."""
    try:
        return await asyncio.to_thread(ask)
    except HetloraError as error:
        tell(error)
        return None


def tell(error: HetloraError) -> None:
    """Say on the page what went wrong, so that screen readers say it too."""
    with ui.card().props("role=alert").classes("w-full border-l-4 border-red-700"):
        ui.label(f"{error.code}: {error}").classes("wrap")


def table(caption: str, names: Sequence[str], rows: Sequence[Mapping[str, object]], empty: str) -> None:
    """A table with headings, or the words for there being nothing."""
    if not rows:
        ui.label(empty)
        return
    with (
        ui.element("section").props(f'aria-label="{caption}" tabindex="0"').classes("w-full overflow-x-auto")
    ):
        columns = [{"name": name, "label": name, "field": name, "align": "left"} for name in names]
        numbered = [{"#": place, **row} for place, row in enumerate(rows)]
        # Pages are the service's: the table shows all that it was given.
        ui.table(columns=columns, rows=numbered, row_key="#", title=caption, pagination=0).props(
            "flat dense hide-pagination"
        )


def next_page(path: str, query: Mapping[str, str], cursor: str | None) -> None:
    """The way to the rows after these, with the same filters."""
    kept = {name: value for name, value in query.items() if value and name != "cursor"}
    with ui.row():
        if "cursor" in query:
            ui.link("First page", f"{path}?{urlencode(kept)}")
        if cursor is not None:
            ui.link("Next page", f"{path}?{urlencode({**kept, 'cursor': cursor})}")


def moment(time: datetime | None) -> str:
    """A time to the second, in UTC, as the service tells it."""
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M:%S")
