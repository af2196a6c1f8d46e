"""The rollouts, and one of them: stages and what decided them, its devices by state, its buttons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import quote

from nicegui import ui

from console.frame import OWN_CHANGES, ROWS, change_rows, confirm, frame, next_page, offered, read, table
from console.run_figures import short
from console.sessions import Session
from hetlora.messages.common import Page
from hetlora.messages.fleet import Transition
from hetlora.messages.operators import OperatorRole
from hetlora.messages.rollouts import RolloutDeviceStatus, RolloutStatus
from hetlora.states import RolloutDeviceState, RolloutState

# Which buttons a state has; the service holds to the same, whoever asks.
VERBS: Final = {
    RolloutState.DRAFT: ("start", "stop"),
    RolloutState.RUNNING: ("pause", "stop", "roll-back"),
    RolloutState.PAUSED: ("resume", "stop", "roll-back"),
    RolloutState.COMPLETED: ("roll-back",),
    RolloutState.STOPPED: ("roll-back",),
}
Seen = tuple[RolloutStatus, Page[RolloutDeviceStatus], Page[Transition]]


async def rollouts(session: Session, population: str, cursor: str | None) -> None:
    """All rollouts of a population, or of all, in the order they were made."""
    filters = {"population": population} if population else {}
    query = {"limit": str(ROWS), **filters} | ({"cursor": cursor} if cursor else {})
    with frame(session, "Rollouts"):
        page = await read(lambda: session.operator.page("/rollouts", RolloutStatus, query))
        if page is None:
            return
        rows = [
            {
                "rollout": own.rollout_id,
                "version": own.version,
                "population": own.population,
                "group": own.group or "all devices",
                "state": str(own.state),
                "stage": f"{own.stage} of {len(own.settings.stages)}",
                "adopted": own.counts.adopted,
                "kept": own.counts.kept,
                "failed": own.counts.failed,
                "reason": own.reason,
            }
            for own in page.items
        ]
        names = ["rollout", "version", "population", "group", "state", "stage"]
        names += ["adopted", "kept", "failed", "reason"]
        empty = "There is no rollout yet: `hetlora rollout create` makes one of an adapter version."
        table("Rollouts", names, rows, empty, lambda row: f"/rollouts/{quote(str(row['rollout']), safe='')}")
        next_page("/rollouts", filters | ({"cursor": cursor} if cursor else {}), page.next_cursor)


async def rollout(session: Session, rollout_id: str, state: str, cursor: str | None) -> None:
    """One rollout, and its devices page by page, of one state where that is asked for."""
    path = f"/rollouts/{quote(rollout_id, safe='')}"
    query = (
        {"limit": str(ROWS)} | ({"state": state} if state else {}) | ({"cursor": cursor} if cursor else {})
    )
    of_it = {"subject": "rollout", "subject_id": rollout_id, "newest_first": "true", "limit": str(ROWS)}

    def ask() -> Seen:
        operator = session.operator
        return (
            operator.rollouts.one(rollout_id),
            operator.page(f"{path}/devices", RolloutDeviceStatus, query),
            operator.page("/transitions", Transition, of_it),
        )

    with frame(session, "Rollout"):
        seen = await read(ask)
        if seen is None:
            return
        found, devices, changes = seen
        ui.label(rollout_id).classes("wrap")
        ui.label(f"{found.state}: {found.reason}").props("role=status").classes("wrap")
        offered(session, OperatorRole.OPERATOR, _buttons(session, found))
        _facts(found)
        _stages(found)
        _devices(found, devices, state, cursor)
        table("What became of it, newest first", OWN_CHANGES, change_rows(changes.items), "Nothing yet.")


def _buttons(session: Session, found: RolloutStatus) -> dict[str, Callable[[], object]]:
    def ask(verb: str) -> None:
        said = verb.replace("-", " ")
        question = f"{said.capitalize()} rollout {found.rollout_id}?"
        act = partial(_move, session, found.rollout_id, verb)
        confirm(question, f"Yes, {said}", act)

    names = {verb.replace("-", " ").capitalize(): verb for verb in VERBS.get(found.state, ())}
    return {name: partial(ask, verb) for name, verb in names.items()}


def _move(session: Session, rollout_id: str, verb: str, _reason: str) -> None:
    session.operator.rollouts.move(rollout_id, verb)


def _facts(found: RolloutStatus) -> None:
    with ui.element("div").classes("flex flex-wrap gap-4"):
        for what, version in (("Version", found.version), ("In place of", found.former)):
            with ui.element("div"):
                ui.label(what).classes("text-sm")
                ui.link(version, f"/adapters/{quote(version, safe='')}").classes("wrap")
        for what, told in (("Population", found.population), ("Group", found.group or "all devices")):
            with ui.element("div"):
                ui.label(what).classes("text-sm")
                ui.label(told)


def _stages(found: RolloutStatus) -> None:
    decided = {own.stage: own for own in found.stages_decided}
    rows = []
    for place, stage in enumerate(found.settings.stages, 1):
        came = decided.get(place)
        rows.append(
            {
                "stage": place,
                "share": f"{stage.share:.0%}",
                "wants reports": stage.least_reports,
                "reports": came.reports if came else "",
                "failed at most": f"{stage.most_failed_share:.0%}",
                "failed": f"{came.failed_share:.1%}" if came else "",
                "loss more at most": short(stage.most_loss_increase),
                "loss more": short(came.loss_increase if came else None),
                "outcome": came.outcome.replace("_", " ") if came else "now" if place == found.stage else "",
            }
        )
    table("Stages, and the figures that decided", [*rows[0]], rows, "")


def _devices(
    found: RolloutStatus, devices: Page[RolloutDeviceStatus], state: str, cursor: str | None
) -> None:
    counts = found.counts.model_dump()
    with ui.element("nav").props('aria-label="Devices by state"').classes("flex flex-wrap gap-4"):
        base = f"/rollouts/{quote(found.rollout_id, safe='')}"
        ui.link(f"all {sum(counts.values()) - counts['silent']}", base)
        for own in RolloutDeviceState:
            if counts[own]:
                link = ui.link(f"{own} {counts[own]}", f"{base}?state={own}")
                link.props('aria-current="true"' if own == state else "")
        if counts["silent"]:
            ui.label(f"silent {counts['silent']}, among those that started")
    rows = [
        {
            "device": own.device_id,
            "stage": own.stage,
            "state": str(own.state),
            "rank": own.rank,
            "reason": own.reason,
        }
        for own in devices.items
    ]
    names = ["device", "stage", "state", "rank", "reason"]
    table("Devices", names, rows, "No device was asked yet.", lambda row: f"/devices/{row['device']}")
    filters = {"state": state} if state else {}
    next_page(base, filters | ({"cursor": cursor} if cursor else {}), devices.next_cursor)
