"""`hetlora device adapter`: which adapter a device answers with, and another one in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from hetlora.cli.folder_option import FolderOption
from hetlora.cli.output import JsonFlag, plain, print_json, say, stdout
from hetlora.cli.parts import part
from hetlora.errors import AdapterUnusable, SettingsError

if TYPE_CHECKING:
    from edge_sdk import Adapters, Comparison, StoredAdapter

app = typer.Typer(no_args_is_help=True, help="The adapters that a device keeps, and the one in use.")

PLACES = {
    "current": "in use",
    "before": "before",
    "newest_global": "newest global",
    "newest_local": "newest local",
    "newest_rollout": "newest rolled out",
}


@app.command()
def show(folder: FolderOption, as_json: JsonFlag = False) -> None:
    """Tell which adapters there are, which is in use, and what became of the last new one.

    Example: `hetlora device adapter show --folder device/`
    """
    adapters = _adapters_in(folder)
    index = adapters.index()
    last = index.last_comparison
    if as_json:
        stored = index.stored()
        print_json(
            {
                "following": index.following,
                "is_undecided": index.is_undecided,
                **{place: _as_object(adapters, stored.get(place)) for place in PLACES},
                "last_comparison": None if last is None else last.model_dump(mode="json"),
            }
        )
        return
    if not index.stored():
        say("no adapter yet: this device took part in no round")
        return
    table = Table(title=f"Adapters, new {index.following} ones are adopted", title_justify="left")
    for column in ("place", "kind", "run", "round", "rank", "loss", "accuracy", "bundle", "usable"):
        table.add_column(column, overflow="fold")
    for place, own in index.stored().items():
        table.add_row(*map(plain, (PLACES[place], *_cells(own), _why_unusable(adapters, own) or "yes")))
    stdout.print(table)
    if last is not None:
        say(in_words(last))


@app.command()
def use(
    kind: Annotated[
        Literal["global", "local", "rollout"],
        typer.Argument(help="Which kind of adapter; new ones of it are adopted too."),
    ],
    folder: FolderOption,
    as_json: JsonFlag = False,
) -> None:
    """Put the newest adapter of a kind in use, whatever its loss is.

    Example: `hetlora device adapter use local --folder device/`
    """
    adapters = _adapters_in(folder)
    _tell(adapters, adapters.use(kind), as_json=as_json)


@app.command("roll-back")
def roll_back(folder: FolderOption, as_json: JsonFlag = False) -> None:
    """Put the adapter in use that was before.

    Example: `hetlora device adapter roll-back --folder device/`
    """
    adapters = _adapters_in(folder)
    _tell(adapters, adapters.roll_back(), as_json=as_json)


def in_words(comparison: Comparison) -> str:
    """One line for what became of a new adapter."""
    new, in_use = comparison.new_loss, comparison.in_use_loss
    losses = "" if new is None or in_use is None else f", loss {new:.4f} against {in_use:.4f}"
    outcome = "adopted" if comparison.outcome == "adopted" else "not adopted"
    return f"{_name(comparison.new)} {outcome}{losses}: {comparison.reason}"


def _adapters_in(folder: Path) -> Adapters:
    with part("edge"):
        from edge_sdk import Adapters
        from edge_sdk.folder import DeviceFolder
    if not folder.is_dir():
        raise SettingsError("no device folder", got=folder, expected="one that `hetlora device run` made")
    return Adapters(DeviceFolder(folder.absolute()))


def _tell(adapters: Adapters, in_use: StoredAdapter, *, as_json: bool) -> None:
    if as_json:
        print_json({"current": _as_object(adapters, in_use)})
    else:
        say(f"in use: {_name(in_use)}")


def _name(stored: StoredAdapter) -> str:
    return f"{stored.kind} adapter of round {stored.round_index + 1} of run {stored.run_id}"


def _cells(stored: StoredAdapter) -> tuple[object, ...]:
    loss = None if stored.loss is None else f"{stored.loss:.4f}"
    accuracy = None if stored.accuracy is None else f"{stored.accuracy:.1%}"
    round_number = stored.round_index + 1
    return (stored.kind, stored.run_id, round_number, stored.rank, loss, accuracy, stored.bundle[:12])


def _as_object(adapters: Adapters, stored: StoredAdapter | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    return {
        "kind": stored.kind,
        "run_id": stored.run_id,
        "round_index": stored.round_index,
        "rank": stored.rank,
        "bundle": stored.bundle,
        "loss": stored.loss,
        "accuracy": stored.accuracy,
        "unusable": _why_unusable(adapters, stored),
    }


def _why_unusable(adapters: Adapters, stored: StoredAdapter) -> str | None:
    try:
        adapters.read(stored)
    except AdapterUnusable as error:
        return f"{error.code}: {error.what}"
    return None
