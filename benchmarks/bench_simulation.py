"""How fast is a simulated campaign, and what does it tell of a fleet of unequal devices?"""

from __future__ import annotations

import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.demo.model import model_folder
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results, Seed
from benchmarks.simulation.fleet_file import FleetFile, read_fleet_file
from benchmarks.simulation.learning import Learning, open_learning
from benchmarks.simulation.picture import draw
from benchmarks.simulation.simulation import simulate
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.output import JsonFlag, stderr
from hetlora.cli.progress import work
from hetlora.cli.simulate import tell
from hetlora.errors import SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

FLEET: Final = Path(__file__).parent / "simulation" / "example.toml"
PACKAGES: Final = ("sqlalchemy", "numpy", "pydantic")


@app.command()
def bench_simulation(
    fleet: Annotated[
        Path, typer.Option(help="The fleet file.", show_default="benchmarks/simulation/example.toml")
    ] = FLEET,
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle's folder; MiniLM, exported now, if not given.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The data set's folder, where devices train for real; the file's if not given."),
    ] = None,
    devices_share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Of each kind's devices, how many.")
    ] = 1.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; the file's if not given.")] = None,
    goal_count: Annotated[
        int | None, typer.Option(min=1, help="Updates of a round; the file's if not given.")
    ] = None,
    results: Results = RESULTS,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> None:
    """Simulate a campaign and account for its time and memory.

    Read: `outcome` (what `hetlora simulate` tells), `seconds`, `check_ins_per_second` of this machine's time,
    `speed_up` (simulated seconds in one of this machine), `peak_rss_bytes`, and `simulation.png`. Where the
    devices of a fleet file train for real, as in `benchmarks/simulation/learning.toml`, the files are called
    `simulation-learning`, and `outcome` has scores.

    Example: `hetlora bench simulation --devices-share 0.01 --rounds 5`
    """
    beginning = begin()
    given = _sized(read_fleet_file(fleet), devices_share, rounds, goal_count, seed)
    asked = given if data is None else _with_data(given, data)
    with tempfile.TemporaryDirectory(prefix="hetlora-bench-") as scratch:
        if asked.training is None and bundle is None:
            learning = Learning(_exported(Path(scratch) / "bundle"))
        else:
            learning = open_learning(asked, Path(scratch) / "task", bundle)
        with work("Simulating", as_json=as_json, console=stderr) as told:
            started = time.perf_counter()
            outcome = simulate(
                asked,
                learning,
                Path(scratch) / "service",
                lambda done, hours: told.at(f"{done} of {asked.run.rounds} rounds, {hours:.1f} hours"),
            )
            seconds = time.perf_counter() - started
    part = "learning" if asked.training else ""
    draw(outcome, results / f"simulation{'-' if part else ''}{part}.png")
    if not as_json:
        tell(outcome)
    figures = {
        "devices": sum(kind.count for kind in asked.devices),
        "seconds": round(seconds, 1),
        "check_ins_per_second": round(outcome.check_ins / seconds, 1),
        "speed_up": round(3600 * outcome.hours / seconds, 1),
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "outcome": asdict(outcome),
    }
    finish(
        "simulation", figures, beginning=beginning, seed=seed, packages=PACKAGES, results=results, part=part
    )


def _with_data(fleet: FleetFile, data: Path) -> FleetFile:
    if fleet.training is None:
        raise SettingsError(
            "--data is of devices that train", got=data, expected="a fleet file with [training]"
        )
    return fleet.model_copy(update={"training": fleet.training.model_copy(update={"data": str(data)})})


def _sized(
    fleet: FleetFile, share: float, rounds: int | None, goal_count: int | None, seed: int
) -> FleetFile:
    kinds = tuple(
        kind.model_copy(update={"count": max(1, round(share * kind.count))}) for kind in fleet.devices
    )
    changes = {"rounds": rounds, "goal_count": goal_count}
    run = fleet.run.model_copy(update={name: own for name, own in changes.items() if own is not None})
    return fleet.model_copy(update={"devices": kinds, "run": run, "seed": seed})


def _exported(folder: Path) -> Bundle:
    """MiniLM with LoRA on its attention; by another process, so that what PyTorch holds is not counted."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as exporter:
        exporter.submit(_export, folder).result()
    return open_bundle(folder, verify=False)


def _export(folder: Path) -> None:
    from export.bundle_writer import export_bundle

    export_bundle(
        str(model_folder()),
        folder,
        labels=("no", "yes"),
        targets=("query", "key", "value", "attention.output.dense"),
        max_rank=32,
        max_tokens=64,
    )
