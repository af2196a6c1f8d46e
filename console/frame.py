"""What all pages share: landmarks, the way between pages, tables, and how faults are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlencode

from nicegui import ui

from console.csv_text import csv_lines
from console.sessions import Session
from hetlora.errors import HetloraError
from hetlora.messages.fleet import Transition
from hetlora.messages.operators import OperatorRole

Got = TypeVar("Got")
PAGES: Final = {
    "/": "Overview",
    "/runs": "Runs",
    "/adapters": "Adapters",
    "/rollouts": "Rollouts",
    "/devices": "Devices",
    "/quarantine": "Quarantine",
    "/audit": "Audit log",
}
ROWS: Final = 50  # of a table on a page
FEW: Final = 8  # rows that nobody filters
OWN_CHANGES: Final = ("at", "from", "to", "reason")
CHANGES: Final = ("at", "subject", "id", "from", "to", "reason")
_LINKED: Final = """<q-td :props="props"><a :href="props.row.href">{{ props.value }}</a></q-td>"""
_STYLE: Final = """<style>
.skip { position: absolute; left: -99rem } .skip:focus { left: 1rem; top: 1rem; z-index: 9999 }
:focus-visible { outline: 3px solid #1976d2 !important; outline-offset: 2px }
main a { color: #1565c0; text-decoration: underline }
body.body--dark main a { color: #90caf9 }
body.body--dark .q-field { --q-primary: #90caf9 }
.q-table__container { max-width: calc(100vw - 2rem) }
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


def table(
    caption: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    empty: str,
    link: Callable[[Mapping[str, object]], str] | None = None,
) -> None:
    """A table with headings to sort by, a filter and its rows as a file; or the words for there being none.

    `link` leads from a row's first cell to the page about it.
    """
    if not rows:
        ui.label(empty)
        return
    with (
        ui.element("section").props(f'aria-label="{caption}" tabindex="0"').classes("w-full overflow-x-auto")
    ):
        columns = [
            {"name": name, "label": name, "field": name, "align": "left", "sortable": True} for name in names
        ]
        numbered = [
            {"#": place, **row, **({"href": link(row)} if link else {})} for place, row in enumerate(rows)
        ]
        # Pages are the service's: the table shows all that it was given.
        shown = ui.table(columns=columns, rows=numbered, row_key="#", title=caption, pagination=0).props(
            "flat dense hide-pagination"
        )
        if link is not None:
            shown.add_slot(f"body-cell-{names[0]}", _LINKED)
        with shown.add_slot("top-right"), ui.row().classes("items-center no-wrap"):
            if len(rows) > FEW:
                words = ui.input("Filter").props(f'dense clearable aria-label="Filter {caption}"')
                shown.bind_filter_from(words, "value")
            file = "".join(csv_lines(names, rows))
            ui.button(
                "CSV", color=None, on_click=lambda: ui.download.content(file, f"{caption}.csv", "text/csv")
            ).props(f'flat dense aria-label="{caption} as CSV"')


def confirm(question: str, yes: str, act: Callable[[str], object], *, reason: bool = False) -> None:
    """Ask before something is done; where it fails, the dialog stays and says so.

    Args:
        act: gets the reason that was typed, empty where none is asked for; runs beside the page.
    """
    # The dialog has the name, not the card in it: Quasar makes a dialog of what is around the card.
    named = f'role=alertdialog aria-label="{question}"'
    with ui.dialog(value=True).props(named) as dialog, ui.card():
        ui.label(question).classes("wrap")
        why = ui.input("Reason").classes("w-full") if reason else None
        told = ui.label().props("role=alert").classes("wrap")

        async def go() -> None:
            await done(partial(act, "" if why is None else why.value.strip()), told)

        with ui.row():
            ui.button(yes, on_click=go)
            ui.button("No", color=None, on_click=dialog.close).props(
                "outline" + ("" if reason else " autofocus")
            )


async def done(act: Callable[[], object], told: ui.label) -> None:
    """Do something beside the page, and show the page anew; where it fails `told` says so."""
    try:
        await asyncio.to_thread(act)
    except HetloraError as error:
        told.text = f"{error.code}: {error}"
    except ValueError as error:  # of the message, before it is sent: a reason that is too long
        told.text = f"does not fit: {error}"
    else:
        ui.navigate.reload()


def offered(session: Session, role: OperatorRole, buttons: Mapping[str, Callable[[], object]]) -> None:
    """Buttons for whoever may use them; for others they are off, and the reason is beside them."""
    refusal = session.refusal(role)
    with ui.row().classes("items-center"):
        for name, act in buttons.items():
            button = ui.button(name, on_click=act)
            if refusal is not None:
                button.disable()
        if refusal is not None and buttons:
            ui.label(refusal)


def next_page(path: str, query: Mapping[str, str], cursor: str | None) -> None:
    """The way to the rows after these, with the same filters."""
    kept = {name: value for name, value in query.items() if value and name != "cursor"}
    with ui.row():
        if "cursor" in query:
            ui.link("First page", f"{path}?{urlencode(kept)}")
        if cursor is not None:
            ui.link("Next page", f"{path}?{urlencode({**kept, 'cursor': cursor})}")


def change_rows(changes: Sequence[Transition]) -> list[dict[str, object]]:
    """Changes of state as rows of a table; of one thing the columns `OWN_CHANGES` will do."""
    return [
        {
            "at": moment(own.at),
            "subject": own.subject,
            "id": own.subject_id,
            "from": own.old or "",
            "to": own.new,
            "reason": own.reason,
        }
        for own in changes
    ]


def moment(time: datetime | None) -> str:
    """A time to the second, in UTC, as the service tells it."""
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M:%S")
