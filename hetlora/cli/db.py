"""`hetlora db`: the tables of the service, which `hetlora serve` also brings up to date when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part

if TYPE_CHECKING:
    from aggregator_service.revisions import Revisions
    from aggregator_service.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The tables of the service: their revision, and upgrades.")

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="The service's folder, without HETLORA_DATABASE_URL. [HETLORA_DATA_DIR, else hetlora-data]",
    ),
]


@app.command("upgrade")
def upgrade(data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Bring the tables to the newest revision, in one transaction; at the newest already, nothing is done.

    Processes of an older hetlora are not ready from then on, and start no more.

    Example: `hetlora db upgrade`
    """
    settings = _settings(data_dir)
    from aggregator_service.revisions import upgrade_tables

    before, after = upgrade_tables(settings)
    if as_json:
        print_json({**_told(after), "before": before.current})
        return
    was = before.current or "without tables"
    say(f"{after.database}: was {was}, is at {after.current}")


@app.command("check")
def check(data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Say whether the tables are at the revision that this hetlora works with; exit code 5 if not.

    Example: `hetlora db check --json`
    """
    if not _show(data_dir, as_json=as_json).is_newest:
        raise typer.Exit(5)


@app.command("current")
def current(data_dir: DataDir = None, as_json: JsonFlag = False) -> None:
    """Say which revision the tables are at.

    Example: `hetlora db current`
    """
    _show(data_dir, as_json=as_json)


def _show(data_dir: Path | None, *, as_json: bool) -> Revisions:
    settings = _settings(data_dir)
    from aggregator_service.revisions import revisions_of

    revisions = revisions_of(settings)
    if as_json:
        print_json(_told(revisions))
    else:
        is_at = f"at {revisions.current}" if revisions.current else "without tables"
        say(f"{revisions.database}: {is_at}, this hetlora works with {revisions.newest}")
    return revisions


def _told(revisions: Revisions) -> dict[str, str | bool | None]:
    return {
        "database": revisions.database,
        "current": revisions.current,
        "newest": revisions.newest,
        "is_newest": revisions.is_newest,
    }


def _settings(data_dir: Path | None) -> Settings:
    with part("service"):
        from aggregator_service.settings import Settings
    return Settings() if data_dir is None else Settings(data_dir=data_dir)
