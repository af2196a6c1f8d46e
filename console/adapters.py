"""Adapter versions: where aliases point, the newest of each run, and one version with what it came from."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from nicegui import ui

from console.frame import ROWS, done, frame, moment, offered, read, table
from console.run_figures import short
from console.sessions import Session
from hetlora.messages.common import Page
from hetlora.messages.management import RunStatus
from hetlora.messages.operators import OperatorRole
from hetlora.messages.registry import AdapterDetails, AliasStatus, VersionNote

MOST_POPULATIONS = 20  # whose aliases one page asks for


async def adapters(session: Session) -> None:
    """Aliases of all populations, and the newest version of each of the newest runs."""
    query = {"newest_first": "true", "limit": str(ROWS)}

    def ask() -> tuple[list[AliasStatus], Page[RunStatus]]:
        operator = session.operator
        names = [own.name for own in operator.populations()][:MOST_POPULATIONS]
        aliases = [alias for name in names for alias in operator.registry.aliases(name)]
        return aliases, operator.page("/runs", RunStatus, query)

    with frame(session, "Adapters"):
        seen = await read(ask)
        if seen is None:
            return
        aliases, runs = seen
        with ui.row().classes("items-center"):
            asked = ui.input("Version")
            show = ui.button("Show", on_click=lambda: ui.navigate.to(_path(asked.value)))
            asked.on("keydown.enter", lambda: show.run_method("click"))
        rows: list[dict[str, object]] = [
            {
                "version": own.version,
                "alias": own.alias,
                "population": own.population,
                "since": moment(own.at),
                "by": own.key_name,
                "reason": own.reason,
            }
            for own in aliases
        ]
        empty = "No alias yet: open a version below and set one, such as champion."
        names = ["version", "alias", "population", "since", "by", "reason"]
        table("Aliases", names, rows, empty, lambda row: _path(str(row["version"])))
        rows = [
            {"version": own.adapter_version, "run": own.name or own.run_id, "population": own.population}
            for own in runs.items
            if own.adapter_version is not None
        ]
        empty = "No run has a version yet."
        names = ["version", "run", "population"]
        table("Newest version of each run", names, rows, empty, lambda row: _path(str(row["version"])))


async def adapter(session: Session, version: str) -> None:
    """One version: where it stands, what it came from, what it scored, what people noted of it."""

    def ask() -> tuple[AdapterDetails, list[VersionNote]]:
        registry = session.operator.registry
        return registry.adapter(version), list(registry.notes(version))

    with frame(session, "Adapter"):
        seen = await read(ask)
        if seen is None:
            return
        found, notes = seen
        aliases = f", {', '.join(found.aliases)}" if found.aliases else ""
        ui.label(version).classes("wrap")
        ui.label(f"{found.status.state}{aliases}").props("role=status")
        buttons = {
            "Set alias": lambda: _set_alias(session, found),
            "Add note": lambda: _add_note(session, version),
        }
        offered(session, OperatorRole.OPERATOR, buttons)
        with ui.row():
            content = f"{_path(version)}/content"
            ui.link("Adapter as safetensors", content)
            ui.link("Signed manifest", f"{_path(version)}/manifest")
        _lineage(found)
        _scores(found)
        rows = [{"at": moment(own.at), "by": own.key_name, "note": own.text} for own in notes]
        table("Notes", ["at", "by", "note"], rows, "No note yet.")


def _lineage(found: AdapterDetails) -> None:
    own = found.lineage
    told = {
        "run": own.run_id,
        "round": "the initial adapter"
        if own.round_index < 0
        else f"{own.round_index + 1}, attempt {own.attempt}",
        "made from": own.made_from or "",
        "rule": own.rule.name,
        "server optimizer": own.server_optimizer.name if own.server_optimizer else "none",
        "defence": own.defence.method,
        "devices asked": own.cohort_size,
        "updates merged": own.update_count,
        "ranks": ", ".join(f"{rank.taken} x {rank.rank}" for rank in own.ranks) or "not told",
        "privacy": f"epsilon {own.privacy.epsilon:.3g} at delta {own.privacy.delta:g}"
        if own.privacy
        else "none",
        "base model": own.base_model,
        "base digest": own.base_sha256,
        "bundle": own.bundle,
        "adapter digest": found.status.sha256,
    }
    ui.link("The run that made it", f"/runs/{quote(own.run_id, safe='')}")
    rows = [{"what": name, "told": str(value)} for name, value in told.items()]
    table("What it came from", ["what", "told"], rows, "")


def _scores(found: AdapterDetails) -> None:
    evaluation = found.status.evaluation
    figures = evaluation.figures if evaluation else None
    rows = [{"figure": name, "value": short(value)} for name, value in sorted(found.status.figures.items())]
    if figures is not None:
        rows += [
            {"figure": "held-out loss", "value": short(figures.loss)},
            {"figure": "held-out accuracy", "value": short(figures.accuracy)},
        ]
    table("Metrics", ["figure", "value"], rows, "No metric was told of it.")


def _set_alias(session: Session, found: AdapterDetails) -> None:
    with ui.dialog(value=True).props('aria-label="Set an alias"') as dialog, ui.card():
        alias = ui.input("Alias", value="champion").props("autofocus")
        reason = ui.input("Reason")
        told = ui.label().props("role=alert").classes("wrap")

        async def go() -> None:
            population, version = found.lineage.population, found.status.version
            act = partial(session.operator.registry.set_alias, population, alias.value, version, reason.value)
            await done(act, told)

        with ui.row():
            ui.button("Set", on_click=go)
            ui.button("Cancel", color=None, on_click=dialog.close).props("outline")


def _add_note(session: Session, version: str) -> None:
    with ui.dialog(value=True).props('aria-label="Add a note"') as dialog, ui.card():
        text = ui.textarea("Note").props("autofocus")
        told = ui.label().props("role=alert").classes("wrap")

        async def go() -> None:
            await done(partial(session.operator.registry.add_note, version, text.value), told)

        with ui.row():
            ui.button("Add", on_click=go)
            ui.button("Cancel", color=None, on_click=dialog.close).props("outline")


def _path(version: str) -> str:
    return f"/adapters/{quote(version.strip(), safe='')}"
