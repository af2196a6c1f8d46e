"""`hetlora simulate`: a campaign on virtual devices, before it is one on real ones."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hetlora.cli.folders import writable
from hetlora.cli.output import JsonFlag, print_json, stdout
from hetlora.cli.parts import part
from hetlora.cli.progress import work
from hetlora.errors import SettingsError

if TYPE_CHECKING:
    from benchmarks.simulation.outcome import Outcome


def drawable(plot: Path | None) -> Path | None:
    """Raise SettingsError if no picture can be written there: after the simulation it would be late."""
    if plot is None:
        return None
    if plot.suffix.lower() not in (".png", ".svg"):
        raise SettingsError("--plot", got=plot, expected="a name that ends with .png or .svg")
    writable(plot.parent)
    return plot


def simulate(
    fleet: Annotated[Path, typer.Argument(help="The fleet file: docs/simulation.md tells its fields.")],
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle's folder; the file's own if not given.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(callback=drawable, help="A picture to write, PNG or SVG.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell how long a campaign takes, how many bytes, which ranks train, and who is left out.

    Virtual devices, as many as you like, come and go on a virtual clock. The service's own code hands out
    work, takes updates, closes rounds and merges; the SDK's own planner picks each device's rank by the
    bundle's cost model. Training takes the time that the planner forecasts; it is not done, and updates are
    noise, unless the file has a task to learn. The same file gives the same answer on the same machine.

    Example: `hetlora simulate fleet.toml --bundle bundle/ --plot campaign.png`
    """
    with part("all"):
        from benchmarks.simulation.fleet_file import read_fleet_file
        from benchmarks.simulation.learning import open_learning
        from benchmarks.simulation.picture import draw
        from benchmarks.simulation.simulation import simulate as simulated
    asked = read_fleet_file(fleet)
    with (
        tempfile.TemporaryDirectory(prefix="hetlora-simulation-") as scratch,
        work("Opening the service", as_json=as_json) as told,
    ):
        folder = Path(scratch)
        learning = open_learning(asked, folder / "task", bundle)

        def progress(rounds: int, hours: float) -> None:
            told.at(f"{rounds} of {asked.run.rounds} rounds, {hours:.1f} hours")

        outcome = simulated(asked, learning, folder / "service", progress)
    if plot is not None:
        draw(outcome, plot)
    if as_json:
        print_json(asdict(outcome))
    else:
        tell(outcome)


def tell(outcome: Outcome) -> None:
    """Print a campaign for people."""
    stdout.print(
        f"The run is {outcome.state} ({outcome.reason}) after {outcome.hours:.1f} hours and "
        f"{outcome.check_ins} check-ins: {outcome.downloaded_bytes / 1e6:.0f} MB down, "
        f"{outcome.uploaded_bytes / 1e6:.0f} MB up."
    )
    table = Table(title="Who took part", title_justify="left")
    for heading in (
        "kind",
        "devices",
        "checked in",
        "trained",
        "accepted",
        "updates",
        "ranks",
        "what became",
    ):
        table.add_column(heading, justify="left" if heading in ("kind", "ranks", "what became") else "right")
    for kind in outcome.kinds:
        table.add_row(
            kind.name,
            *map(str, (kind.devices, kind.checked_in, kind.trained, kind.accepted, kind.updates)),
            _counted(kind.ranks),
            _counted(kind.outcomes),
        )
    stdout.print(table)
    if outcome.scores:
        told = ", ".join(f"{rounds}: {score:.3f}" for rounds, score in outcome.scores.items())
        stdout.print(f"Score on held-out examples after so many rounds: {told}")


def _counted(counts: object) -> str:
    assert isinstance(counts, dict)
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
