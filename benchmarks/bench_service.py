"""How many requests of devices does a service bear, how soon does it answer, and in how much memory?"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from aggregator_service.settings import Role
from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results, choices_of, counts_of
from benchmarks.service.client_cost import client_cpu_ms
from benchmarks.service.faults import DatabaseName
from benchmarks.service.load import RANK, LoadPlan, LoadRow, measure
from benchmarks.service.superlink import SuperLinkPlan, measure_superlink
from hetlora.cli.output import JsonFlag, stderr, stdout
from hetlora.errors import ServiceFailed, SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

DATABASES: tuple[DatabaseName, ...] = ("sqlite", "postgresql")
ALONE: tuple[Role, ...] = ("all",)
SPLIT: tuple[Role, ...] = ("api", "worker")


@app.command()
def bench_service(
    devices: Annotated[int, typer.Option(min=1, help="Devices of each comparison.")] = 1000,
    fleet: Annotated[int, typer.Option(min=1, help="Devices of the one large run.")] = 4000,
    fleet_database: Annotated[
        str | None, typer.Option(help="Its database; without it the last of --databases.")
    ] = None,
    databases: Annotated[str, typer.Option(help="Comma-separated.")] = "sqlite,postgresql",
    replicas: Annotated[str, typer.Option(help="How many processes, comma-separated.")] = "1,2",
    features: Annotated[
        str, typer.Option(help="Widths of four layers: 128 bytes of adapter each, comma-separated.")
    ] = "64,4096,32768",
    goal_count: Annotated[int, typer.Option(min=1, help="Updates of a round.")] = 50,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 32,
    generators: Annotated[int, typer.Option(min=1, help="Processes that are the devices.")] = 1,
    peer: Annotated[bool, typer.Option(help="Measure Flower's SuperLink, too.")] = True,
    peer_nodes: Annotated[int, typer.Option(min=1, help="Nodes of the SuperLink.")] = 50,
    peer_updates: Annotated[int, typer.Option(min=1, help="Updates of it, and of ours beside it.")] = 200,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the devices, two widths.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of keys.")] = 0,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Bring fleets of simulated devices through the rounds of a real service on loopback.

    Every device has a key of its own and signs as real ones do: it checks in, takes the offer, downloads the
    adapter, uploads an update and submits, until an update of its is accepted; each request goes to another
    process of the service than the one before. Devices are enrolled beforehand. Services are `hetlora serve`
    with SQLite in its folder, or with a PostgreSQL server started for it, both waiting for the disk.

    `rows` are comparisons of databases and numbers of processes; `sizes` of adapters, with one process that
    answers and one that aggregates; `fleet` is one large run. After each, counts are reconciled from the
    database: `lost` are devices whose update is in no committed round, `doubled` updates beyond one a device.
    The command ends with 1 if there are any. `client_cpu_ms` is what a request costs the load generator, and
    what it would cost it with httpx. `peer` is Flower's SuperLink beside one process of ours, both on SQLite:
    updates a second ours over theirs, and processor time of the server an update theirs over ours. The first
    time its environment is installed in `.cache/peers`.

    Example: `hetlora bench service --quick`
    """
    beginning = begin()
    if quick:
        devices, fleet, features = max(1, devices // 10), max(1, fleet // 10), "64,4096"
        peer_nodes, peer_updates = min(10, peer_nodes), min(50, peer_updates)
    kinds, counts = choices_of(databases, "databases", DATABASES), counts_of(replicas, "replicas")
    widths = counts_of(features, "features")

    def plan(database: DatabaseName, roles: tuple[Role, ...], count: int, width: int) -> LoadPlan:
        whole = goal_count * -(-count // goal_count)  # the last round is a full one, too
        return LoadPlan(database, roles, whole, width, goal_count, concurrency, generators, seed)

    last, most = kinds[-1], max(counts)
    (large, *others) = choices_of(fleet_database or last, "fleet-database", DATABASES)
    if others:
        raise SettingsError("--fleet-database", got=fleet_database, expected=f"one of {', '.join(DATABASES)}")
    plans = {
        "rows": [plan(kind, ALONE * count, devices, widths[0]) for kind in kinds for count in counts],
        "sizes": [plan(last, SPLIT, max(goal_count, devices // 5), width) for width in widths],
        "fleet": [plan(large, ALONE * most, fleet, widths[0])],
    }
    compared = plan("sqlite", ALONE, peer_updates, widths[0])
    # Before the large run, which may take hours: what fails is told soon.
    figures: dict[str, Any] = {"client_cpu_ms": _clients()}
    figures["peer"] = _beside_flower(compared, peer_nodes) if peer else None
    measured = _measured_all(plans)
    if not as_json:
        _show([row for rows in measured.values() for row in rows])
    figures |= {name: [asdict(row) for row in rows] for name, rows in measured.items()}
    packages = ("uvicorn", "fastapi", "sqlalchemy", "psycopg", "httpx")
    finish("service", figures, beginning=beginning, seed=seed, packages=packages, results=results)
    if any(row.lost or row.doubled for rows in measured.values() for row in rows):
        raise typer.Exit(1)


def _measured_all(plans: Mapping[str, Sequence[LoadPlan]]) -> dict[str, list[LoadRow]]:
    """Every plan's row, under the names of the plans."""
    with Progress(console=stderr, transient=True) as progress:

        def measured(plan: LoadPlan) -> LoadRow:
            what = f"{plan.devices} devices, {plan.database}, {len(plan.roles)} processes"
            bar = progress.add_task(what, total=plan.devices)
            row = _measured(plan, lambda updates: progress.update(bar, completed=updates))
            progress.update(bar, completed=plan.devices)
            return row

        return {name: [measured(plan) for plan in own] for name, own in plans.items()}


def _measured(plan: LoadPlan, tell: Callable[[int], object] = lambda _updates: None) -> LoadRow:
    with tempfile.TemporaryDirectory(prefix="hetlora-service-") as folder:
        return asyncio.run(measure(plan, Path(folder) / "stage", tell))


def _beside_flower(plan: LoadPlan, nodes: int) -> dict[str, Any]:
    """A SuperLink and one process of ours, both on SQLite, in turn on the same number of updates.

    With half as many nodes again where it does not carry them.
    """
    not_carried: dict[int, str] = {}
    while True:
        goal_count = min(plan.goal_count, nodes)
        rounds = max(1, plan.devices // goal_count)
        own = SuperLinkPlan(nodes, rounds, goal_count, plan.features, RANK)
        try:
            with tempfile.TemporaryDirectory(prefix="hetlora-superlink-") as folder:
                theirs = measure_superlink(own, Path(folder))
            break
        except ServiceFailed as error:
            not_carried[nodes] = str(error)
            if nodes == 1:
                raise
            nodes //= 2
    ours = _measured(replace(plan, devices=rounds * goal_count, goal_count=goal_count, concurrency=nodes))
    return {
        "throughput_ratio": round(ours.updates_per_second / theirs.updates_per_second, 2),
        "cpu_ratio": round(theirs.cpu_ms_per_update / ours.cpu_ms_per_update, 2),
        "not_carried": not_carried,
        "superlink": asdict(theirs),
        "ours": asdict(ours),
    }


def _clients() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="hetlora-service-") as folder:
        return asyncio.run(client_cpu_ms(Path(folder) / "stage"))


def _show(rows: Sequence[LoadRow]) -> None:
    headings = ("database", "processes", "devices", "adapter MB", "requests/s", "lost", "peak MB")
    table = Table(*headings, title="Fleets through rounds", title_justify="left")
    for row in rows:
        sizes = f"{row.devices}", f"{row.adapter_bytes / 1e6:.2f}", f"{row.requests_per_second:.0f}"
        peaks = ", ".join(f"{peak / 1e6:.0f}" for peak in row.peak_rss_bytes)
        table.add_row(row.database, ", ".join(row.roles), *sizes, str(row.lost + row.doubled), peaks)
    stdout.print(table)
    times = Table("database", "processes", "request", "median ms", "99 % ms", title="Answers")
    for row in rows:
        for step, own in row.by_step.items():
            name = step.replace("_", " ")
            times.add_row(row.database, ", ".join(row.roles), name, f"{own['p50_ms']}", f"{own['p99_ms']}")
    stdout.print(times)
