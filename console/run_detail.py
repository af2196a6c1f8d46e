"""One run: how it stands, what its rounds came to, and the buttons that move it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from urllib.parse import quote

from nicegui import ui

from console.frame import ROWS, confirm, frame, moment, next_page, offered, table, tell
from console.run_figures import short, show_figures
from console.sessions import Session
from hetlora.errors import HetloraError
from hetlora.messages.common import Page
from hetlora.messages.figures import RoundFigures
from hetlora.messages.management import AdapterVersionStatus, AssignmentStatus, RunStatus
from hetlora.messages.operators import OperatorRole
from hetlora.states import RunState, is_final

POLL_SECONDS: Final = 2.0
MOST_VERSIONS: Final = 20
# Which buttons a state has; the service holds to the same, whoever asks.
VERBS: Final = {
    RunState.DRAFT: ("start", "stop"),
    RunState.RUNNING: ("pause", "stop"),
    RunState.PAUSED: ("resume", "stop"),
}
Seen = tuple[RunStatus, Page[RoundFigures], Page[AdapterVersionStatus], tuple[AssignmentStatus, ...]]


async def run_detail(session: Session, run_id: str, cursor: str | None) -> None:
    """A run, looked at again every `POLL_SECONDS` until it ends."""
    path = f"/runs/{quote(run_id, safe='')}"
    query = {"newest_first": "true", "limit": str(ROWS)} | ({"cursor": cursor} if cursor else {})

    async def ask() -> Seen:
        operator, few = session.operator, {"limit": str(MOST_VERSIONS)}
        run, figures, adapters = await asyncio.gather(
            asyncio.to_thread(operator.run, run_id),
            asyncio.to_thread(operator.page, f"{path}/figures", RoundFigures, query),
            asyncio.to_thread(operator.page, f"{path}/adapters", AdapterVersionStatus, few),
        )
        newest = next((own.round_index for own in figures.items if own.asked), None)
        if newest is None:
            return run, figures, adapters, ()
        asked = {"round_index": str(newest), "limit": str(ROWS)}
        given = await asyncio.to_thread(operator.page, f"{path}/assignments", AssignmentStatus, asked)
        return run, figures, adapters, given.items

    with frame(session, "Run"):
        ui.label(run_id).classes("wrap")

        bar = ui.row()
        last: list[object] = []  # what is shown, and the state that the buttons are for

        @ui.refreshable
        def shown(got: Seen | HetloraError) -> None:
            if isinstance(got, HetloraError):
                tell(got)
                return
            run, figures, adapters, given = got
            ui.label(f"{run.state}, {run.rounds_committed} of {run.settings.rounds} rounds").props(
                "role=status"
            )
            ui.label(run.reason).classes("wrap")
            show_figures(figures.items)
            next_page(f"/runs/{run_id}", {"cursor": cursor} if cursor else {}, figures.next_cursor)
            _assignments(given)
            _adapters(adapters.items)

        async def look() -> Seen | HetloraError:
            try:
                return await ask()
            except HetloraError as error:
                return error

        async def poll() -> None:
            # What has not changed is not drawn anew: it would take the focus, and be read out again.
            got = await look()
            seen = str(got) if isinstance(got, HetloraError) else got
            if last[:1] != [seen]:
                last[:1] = [seen]
                shown.refresh(got)
            if not isinstance(got, HetloraError):
                buttons(got[0])

        def buttons(run: RunStatus) -> None:
            if last[1:] == [run.state]:
                return
            last[1:] = [run.state]
            bar.clear()
            with bar:
                _buttons(session, run)
            if is_final(run.state):
                timer.cancel()

        first = await look()
        timer = ui.timer(POLL_SECONDS, poll, immediate=False)
        last.append(str(first) if isinstance(first, HetloraError) else first)
        if not isinstance(first, HetloraError):
            buttons(first[0])
        shown(first)


def _buttons(session: Session, run: RunStatus) -> None:
    def ask(verb: str) -> None:
        question = f"{verb.capitalize()} run {run.run_id}?"
        act = partial(_move, session, run.run_id, verb)
        confirm(question, f"Yes, {verb}", act)

    verbs: dict[str, Callable[[], object]] = {
        verb.capitalize(): partial(ask, verb) for verb in VERBS.get(run.state, ())
    }
    offered(session, OperatorRole.OPERATOR, verbs)


def _move(session: Session, run_id: str, verb: str, _reason: str) -> None:
    session.operator.move_run(run_id, verb)


def _assignments(given: Sequence[AssignmentStatus]) -> None:
    rows = [
        {
            "device": own.device_id,
            "name": own.device_name,
            "state": own.state,
            "rank": own.rank,
            "loss": short(own.last_loss),
            "bytes down": own.downloaded_bytes,
            "bytes up": own.uploaded_bytes,
            "seconds": short(own.training_seconds),
            "reason": own.reason,
        }
        for own in given
    ]
    names = ["device", "name", "state", "rank", "loss", "bytes down", "bytes up", "seconds", "reason"]
    empty = "No device has work yet."
    table(
        f"Devices of the newest round, {ROWS} at most",
        names,
        rows,
        empty,
        lambda row: f"/devices/{row['device']}",
    )


def _adapters(adapters: Sequence[AdapterVersionStatus]) -> None:
    rows = [
        {
            "version": own.version,
            "round": own.round_index + 1,
            "state": own.state,
            "updates": own.update_count,
            "loss": short(figures.loss if figures else None),
            "accuracy": short(figures.accuracy if figures else None),
            "created": moment(own.created_at),
        }
        for own in adapters
        for figures in [own.evaluation.figures if own.evaluation else None]
    ]
    names = ["version", "round", "state", "updates", "loss", "accuracy", "created"]
    empty = "No adapter version yet."
    table(
        f"Adapter versions, the newest {MOST_VERSIONS}",
        names,
        rows,
        empty,
        lambda row: f"/adapters/{quote(str(row['version']), safe='')}",
    )
