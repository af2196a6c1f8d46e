"""Does a service of several processes lose or double anything, whatever befalls it?"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.harness import RESULTS, begin, finish
from benchmarks.options import Results
from benchmarks.service.chaos import run_chaos
from benchmarks.service.faults import DatabaseName
from benchmarks.service.outcome import Outcome
from benchmarks.service.stores import StoreName
from hetlora.cli.output import JsonFlag, plain, stderr, stdout
from hetlora.errors import SettingsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def bench_chaos(
    faults: Annotated[int, typer.Option(min=1, help="How many faults.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the faults, of keys and of updates.")] = 0,
    database: Annotated[DatabaseName, typer.Option(help="What the processes share.")] = "sqlite",
    store: Annotated[StoreName, typer.Option(help="Where objects and updates are.")] = "folder",
    replicas: Annotated[int, typer.Option(min=1, max=8, help="Processes of the service.")] = 2,
    keep: Annotated[
        Path | None,
        typer.Option(help="A new folder for database, store (not a bucket) and logs, to be looked at."),
    ] = None,
    results: Results = RESULTS,
    as_json: JsonFlag = False,
) -> None:
    """Kill, hang, cut off and mislead a real service while devices work, and then check all that it kept.

    Two runs of short rounds go on over the processes of one service (SQLite, or a PostgreSQL server started
    for it; a data folder, or an S3 server with a bucket), while fourteen simulated devices with real keys
    bring real updates, and evaluate every other version of one run. Between come the faults: SIGKILL and
    SIGSTOP of processes, clocks that are off by minutes or hours, files that may not grow, a database that is
    locked, cut off or killed, a bucket that is slow or away, requests that break off, come twice, late, again
    or spoilt.

    Then tables and store are checked by code of their own, and every committed adapter is made again from the
    stored updates, bit for bit. A violation ends the command with 1.

    The seed decides the faults, their order and their distances (`schedule_sha256`). What the processes are
    just at when one comes is up to the machine, and is not the same again.

    Example: `hetlora bench chaos --faults 1000 --seed 7 --database postgresql`
    """
    if keep is not None and keep.exists():
        raise SettingsError("the folder to keep is there already", got=keep, expected="a new one")
    beginning = begin()
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hetlora-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(
            run_chaos(folder, faults=faults, seed=seed, database=database, replicas=replicas, store=store)
        )
    if not as_json:
        _show(outcome)
    figures = figures_of(outcome, database, replicas, store)
    finish(
        "chaos",
        figures,
        beginning=beginning,
        seed=seed,
        packages=("sqlalchemy", "uvicorn"),
        results=results,
        part=database if store == "folder" else f"{database}-{store}",
    )
    for violation in outcome.violations if as_json else ():
        stderr.print(plain(violation), soft_wrap=True)
    if outcome.violations:
        raise typer.Exit(1)


def figures_of(outcome: Outcome, database: DatabaseName, replicas: int, store: StoreName) -> dict[str, Any]:
    """The result as plain JSON values."""
    return {
        "faults": outcome.happened.total(),
        "violations": len(outcome.violations),
        "rounds": outcome.rounds,
        "updates_accepted": outcome.updates_accepted,
        "evaluations": outcome.evaluations,
        "evaluation_reports": outcome.evaluation_reports,
        "seconds": outcome.seconds,
        "database": database,
        "store": store,
        "replicas": replicas,
        "schedule_sha256": outcome.schedule_sha256,
        "faults_by_kind": dict(outcome.happened.most_common()),
        "answers_by_status": dict(outcome.answers.most_common()),
        "attempts_abandoned": outcome.attempts_abandoned,
        "receipts": outcome.receipts,
    }


def _show(outcome: Outcome) -> None:
    table = Table("fault", "times", title="What befell the service", title_justify="left")
    for kind, count in outcome.happened.most_common():
        table.add_row(kind.replace("_", " "), str(count))
    stdout.print(table)
    kept = f"{outcome.rounds} rounds of {outcome.updates_accepted} updates, {outcome.receipts} receipts"
    scored = f"{outcome.evaluations} evaluations of {outcome.evaluation_reports} reports"
    stdout.print(f"{kept}; {scored}; {len(outcome.violations)} violations")
    for violation in outcome.violations:
        stdout.print(plain(f"- {violation}"), soft_wrap=True)
