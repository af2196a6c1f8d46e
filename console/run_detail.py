"""One run: how it stands, what its rounds came to, and the buttons that move it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from nicegui import ui

from console.frame import ROWS, frame, moment, next_page, table, tell
from console.sessions import Session
from hetlora.errors import HetloraError
from hetlora.messages.common import Page
from hetlora.messages.management import AdapterVersionStatus, AssignmentStatus, RoundStatus, RunStatus
from hetlora.messages.operators import OperatorRole
from hetlora.states import RunState, is_final

POLL_SECONDS: Final = 2.0
# Which buttons a state has; the service holds to the same, whoever asks.
VERBS: Final = {
    RunState.DRAFT: ("start", "stop"),
    RunState.RUNNING: ("pause", "stop"),
    RunState.PAUSED: ("resume", "stop"),
}


Seen = tuple[RunStatus, Page[RoundStatus], Page[AdapterVersionStatus], tuple[AssignmentStatus, ...]]


async def run_detail(session: Session, run_id: str, cursor: str | None) -> None:
    """A run, looked at again every `POLL_SECONDS` until it ends."""
    path = f"/runs/{quote(run_id, safe='')}"
    query = {"newest_first": "true", "limit": str(ROWS)} | ({"cursor": cursor} if cursor else {})

    def ask() -> tuple[
        RunStatus, Page[RoundStatus], Page[AdapterVersionStatus], tuple[AssignmentStatus, ...]
    ]:
        operator = session.operator
        run = operator.run(run_id)
        rounds = operator.page(f"{path}/rounds", RoundStatus, query)
        adapters = operator.page(f"{path}/adapters", AdapterVersionStatus, {"limit": "100"})
        newest = next((own.round_index for own in rounds.items if own.offered), None)
        given: tuple[AssignmentStatus, ...] = ()
        if newest is not None:
            asked = {"round_index": str(newest), "limit": "100"}
            given = operator.page(f"{path}/assignments", AssignmentStatus, asked).items
        return run, rounds, adapters, given

    with frame(session, "Run"):
        ui.label(run_id).classes("wrap")

        bar = ui.row()
        last: list[object] = []  # what is shown, and the state that the buttons are for

        @ui.refreshable
        def shown(got: Seen | HetloraError) -> None:
            if isinstance(got, HetloraError):
                tell(got)
                return
            run, rounds, adapters, given = got
            ui.label(f"{run.state}, {run.rounds_committed} of {run.settings.rounds} rounds").props(
                "role=status"
            )
            ui.label(run.reason).classes("wrap")
            _losses(adapters.items)
            _ranks(given)
            _rounds(rounds.items)
            next_page(f"/runs/{run_id}", {"cursor": cursor} if cursor else {}, rounds.next_cursor)
            _assignments(given)
            _adapters(adapters.items)

        async def look() -> Seen | HetloraError:
            try:
                return await asyncio.to_thread(ask)
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
    refusal = session.refusal(OperatorRole.OPERATOR)
    with ui.row():
        for verb in VERBS.get(run.state, ()):
            button = ui.button(verb.capitalize(), on_click=lambda _, verb=verb: _confirm(session, run, verb))
            if refusal is not None:
                button.disable()
    if refusal is not None and not is_final(run.state):
        ui.label(refusal)


async def _confirm(session: Session, run: RunStatus, verb: str) -> None:
    with ui.dialog(value=True) as dialog, ui.card().props(f'role=alertdialog aria-label="{verb} this run?"'):
        ui.label(f"{verb.capitalize()} run {run.run_id}?").classes("wrap")
        told = ui.label().props("role=alert").classes("wrap")

        async def move() -> None:
            try:
                await asyncio.to_thread(session.operator.move_run, run.run_id, verb)
            except HetloraError as error:
                told.text = f"{error.code}: {error}"
            else:
                ui.navigate.to(f"/runs/{run.run_id}")

        with ui.row():
            ui.button(f"Yes, {verb}", on_click=move)
            ui.button("No", on_click=dialog.close).props("outline autofocus")


def _losses(adapters: Sequence[AdapterVersionStatus]) -> None:
    figures = [
        (own.round_index + 1, own.evaluation.figures)
        for own in reversed(adapters)
        if own.evaluation is not None and own.evaluation.figures is not None
    ]
    if not figures:
        ui.label("No held-out loss yet: figures come with evaluations that enough devices report to.")
        return
    losses: list[list[float | None]] = [[place, own.loss] for place, own in figures]
    series: list[tuple[str, list[list[float | None]]]] = [("loss", losses)]
    if any(own.accuracy is not None for _, own in figures):
        series.append(("accuracy", [[place, own.accuracy] for place, own in figures]))
    ui.echart(
        {
            "animation": False,
            "aria": {"enabled": True},
            "legend": {},
            "tooltip": {"trigger": "axis"},
            "xAxis": {"type": "value", "name": "round", "minInterval": 1},
            "yAxis": {"type": "value"},
            "series": [{"name": name, "type": "line", "data": data} for name, data in series],
        }
    ).classes("w-full").props('role=img aria-label="Held-out loss by round; the table below has the figures"')


def rank_counts(given: Sequence[AssignmentStatus]) -> list[tuple[int, int]]:
    """How many devices took each rank, lowest first; those that took none yet are left out."""
    return sorted(Counter(own.rank for own in given if own.rank is not None).items())


def _ranks(given: Sequence[AssignmentStatus]) -> None:
    counts = rank_counts(given)
    if not counts:
        return
    ui.echart(
        {
            "animation": False,
            "aria": {"enabled": True},
            "tooltip": {},
            "xAxis": {"type": "category", "name": "rank", "data": [str(rank) for rank, _ in counts]},
            "yAxis": {"type": "value", "name": "devices", "minInterval": 1},
            "series": [{"type": "bar", "data": [count for _, count in counts]}],
        }
    ).classes("w-full").props('role=img aria-label="Devices by rank in the newest round"')
    rows = [{"rank": rank, "devices": count} for rank, count in counts]
    table("Ranks of the newest round, of 100 devices at most", ["rank", "devices"], rows, "")


def _rounds(rounds: Sequence[RoundStatus]) -> None:
    rows = [
        {
            "round": own.round_index + 1,
            "attempt": own.attempt,
            "state": own.state,
            "accepted": own.accepted,
            "seconds": ""
            if own.ended_at is None
            else round((own.ended_at - own.started_at).total_seconds(), 1),
            "reason": own.reason,
        }
        for own in rounds
    ]
    table("Rounds", ["round", "attempt", "state", "accepted", "seconds", "reason"], rows, "No round yet.")


def _assignments(given: Sequence[AssignmentStatus]) -> None:
    rows = [
        {
            "device": own.device_name or own.device_id,
            "state": own.state,
            "rank": own.rank,
            "loss": _short(own.last_loss),
            "bytes down": own.downloaded_bytes,
            "bytes up": own.uploaded_bytes,
            "seconds": _short(own.training_seconds),
            "reason": own.reason,
        }
        for own in given
    ]
    names = ["device", "state", "rank", "loss", "bytes down", "bytes up", "seconds", "reason"]
    table("Devices of the newest round, 100 at most", names, rows, "No device has work yet.")


def _short(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"


def _adapters(adapters: Sequence[AdapterVersionStatus]) -> None:
    rows = [
        {
            "version": own.version,
            "round": own.round_index + 1,
            "state": own.state,
            "updates": own.update_count,
            "loss": _short(figures.loss if figures else None),
            "accuracy": _short(figures.accuracy if figures else None),
            "created": moment(own.created_at),
        }
        for own in adapters
        for figures in [own.evaluation.figures if own.evaluation else None]
    ]
    names = ["version", "round", "state", "updates", "loss", "accuracy", "created"]
    table("Adapter versions, the newest 100", names, rows, "No adapter version yet.")
