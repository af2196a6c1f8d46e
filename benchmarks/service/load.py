"""One measurement of a service under load: its processes, a fleet in others, and the account afterwards."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Engine, text

from aggregator_service.settings import Role
from benchmarks.service.device import STEPS
from benchmarks.service.faults import DatabaseName
from benchmarks.service.stage import POPULATION, Stage, staged
from benchmarks.service.tiny_bundle import tiny_spec
from benchmarks.service.wire import Key
from hetlora.errors import HetloraError
from hetlora.messages.management import RunSettings

RANK: Final = 4
# A device that is told to come back does so soon: a fleet would have others come meanwhile.
LONGEST_WAIT_SECONDS: Final = 0.2
COMMIT_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 5.0
SETTINGS: Final = {
    "HETLORA_MAX_REQUESTS_PER_MINUTE": "100000",
}


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is measured: one service, one run of as many rounds as the fleet fills, one adapter size."""

    database: DatabaseName
    roles: tuple[Role, ...]  # of the processes
    devices: int  # a multiple of `goal_count`
    features: int  # of each of four square layers
    goal_count: int = 50
    concurrency: int = 32  # requests under way at a time, over all generators
    generators: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LoadRow:
    """What one measurement came to; a request takes from its first byte sent to the last one received."""

    database: str
    roles: tuple[Role, ...]
    devices: int
    adapter_bytes: int
    requests: int
    seconds: float
    requests_per_second: float
    updates_per_second: float
    by_step: dict[str, dict[str, float]]
    peak_rss_bytes: list[int]  # of the processes, in the order of their roles
    rounds: int
    accepted: int
    told_accepted: int
    lost: int
    doubled: int
    failed_tries: dict[str, int]
    cpu_ms_per_update: float  # of the processes of the service; PostgreSQL is not among them
    generator_cpu_share: float  # of one core: near 1 the generators are what is measured


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of a service after a run; `counted` is from its tables."""

    seconds: float
    cpu_seconds: float
    peak_rss_bytes: list[int]
    counted: dict[str, int]


async def measure(
    plan: LoadPlan, folder: Path, tell: Callable[[int], object] = lambda _updates: None
) -> LoadRow:
    """Bring every device of a fleet through a round.

    Args:
        folder: holds all files, a new one.
        tell: gets the number of updates in committed rounds, every few seconds.

    Raises:
        HetloraError: a generator failed, or the last round does not commit.
    """
    folder.mkdir(parents=True)
    spec = tiny_spec(plan.features, RANK)
    staging = staged(folder, spec, database=plan.database, roles=plan.roles, settings=SETTINGS)
    async with staging as stage:
        stage.enrol([Key(plan.seed, number) for number in range(plan.devices)])
        run_id = stage.start_run(_run_settings(plan))
        started, cpu_started = time.perf_counter(), _cpu_seconds(stage)
        watching = asyncio.create_task(_watch(stage, run_id, lambda rounds: tell(rounds * plan.goal_count)))
        try:
            told = await asyncio.gather(
                *(_generator(plan, stage, folder, number) for number in range(plan.generators))
            )
        finally:
            watching.cancel()
        seconds = time.perf_counter() - started
        await _completed(stage, run_id)
        engine = stage.engine()
        account = Account(
            seconds=seconds,
            cpu_seconds=_cpu_seconds(stage) - cpu_started,
            peak_rss_bytes=[replica.peak_rss_bytes() for replica in stage.replicas],
            counted=reconciled(engine, run_id),
        )
        engine.dispose()
    return _row(plan, folder, told, account)


def _cpu_seconds(stage: Stage) -> float:
    return sum(replica.cpu_seconds() for replica in stage.replicas)


async def _generator(plan: LoadPlan, stage: Stage, folder: Path, number: int) -> dict[str, Any]:
    """One process with its share of the devices."""
    firsts = np.linspace(0, plan.devices, plan.generators + 1).astype(int)
    config = {
        "ports": stage.ports,
        "population": POPULATION,
        "seed": plan.seed,
        "first": int(firsts[number]),
        "count": int(firsts[number + 1] - firsts[number]),
        "concurrency": -(-plan.concurrency // plan.generators),
        "longest_wait_seconds": LONGEST_WAIT_SECONDS,
        "out": str(folder / f"load-{number}.npz"),
    }
    path = folder / f"load-{number}.json"
    path.write_text(json.dumps(config))
    command = (sys.executable, "-m", "benchmarks.service.load_process", str(path))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise HetloraError("a load generator failed", got=errors.decode()[-400:])
    told: dict[str, Any] = json.loads(output)
    return told


async def _watch(stage: Stage, run_id: str, tell: Callable[[int], object]) -> None:
    """Tell how many rounds are committed, until cancelled."""
    with stage.operator() as operator:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(HetloraError):  # what fails under load is told the next time
                tell(operator.run(run_id).rounds_committed)


async def _completed(stage: Stage, run_id: str) -> None:
    """Wait for the last round, which the last device does not wait for."""
    deadline = time.monotonic() + COMMIT_SECONDS
    with stage.operator() as operator:
        while (run := operator.run(run_id)).state != "completed":
            if time.monotonic() > deadline:
                raise HetloraError("the run does not end", got=f"state {run.state}: {run.reason}")
            await asyncio.sleep(0.1)


def reconciled(engine: Engine, run_id: str) -> dict[str, int]:
    """Counts of a run from its tables: rounds, updates in them, and devices whose update is in one."""
    query = text(
        "SELECT count(*), count(DISTINCT assignments.device_id), count(DISTINCT rounds.id)"
        " FROM assignments JOIN rounds ON rounds.id = assignments.round_id"
        " WHERE assignments.run_id = :run AND assignments.state = 'accepted' AND rounds.state = 'committed'"
    )
    merged = text("SELECT sum(update_count) FROM adapter_versions WHERE run_id = :run")
    with engine.connect() as connection:
        accepted, devices, rounds = connection.execute(query, {"run": run_id}).one()
        updates = connection.execute(merged, {"run": run_id}).scalar_one()
    return {"accepted": accepted, "devices": devices, "rounds": rounds, "merged": updates}


def _row(plan: LoadPlan, folder: Path, told: Sequence[dict[str, Any]], account: Account) -> LoadRow:
    counted = account.counted
    by_step = latencies([folder / f"load-{number}.npz" for number in range(plan.generators)])
    requests = sum(int(step["requests"]) for step in by_step.values())
    failed: Counter[str] = Counter()
    for own in told:
        failed += Counter(own["failed_tries"])
    return LoadRow(
        database=plan.database,
        roles=plan.roles,
        devices=plan.devices,
        adapter_bytes=4 * RANK * tiny_spec(plan.features, RANK).parameters_per_rank,
        requests=requests,
        seconds=round(account.seconds, 2),
        requests_per_second=round(requests / account.seconds, 1),
        updates_per_second=round(plan.devices / account.seconds, 2),
        by_step=by_step,
        peak_rss_bytes=account.peak_rss_bytes,
        rounds=counted["rounds"],
        accepted=counted["accepted"],
        told_accepted=sum(own["accepted"] for own in told),
        # A version may not be of more updates than there are, either.
        lost=plan.devices - min(counted["devices"], counted["merged"]),
        doubled=max(counted["accepted"], counted["merged"]) - counted["devices"],
        failed_tries=dict(failed),
        cpu_ms_per_update=round(1000 * account.cpu_seconds / plan.devices, 1),
        generator_cpu_share=round(max(own["cpu_seconds"] / own["seconds"] for own in told), 2),
    )


def latencies(files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Requests, and milliseconds at the median and at the 99th percentile, by step."""
    parts = [np.load(file) for file in files]
    found: dict[str, dict[str, float]] = {}
    for step in STEPS:
        own = [part[step] for part in parts if step in part]
        if own:
            milliseconds = 1000 * np.concatenate(own)
            p50, p99 = (round(float(value), 2) for value in np.percentile(milliseconds, (50, 99)))
            found[step] = {"requests": len(milliseconds), "p50_ms": p50, "p99_ms": p99}
    return found


def _run_settings(plan: LoadPlan) -> RunSettings:
    return RunSettings(
        rounds=plan.devices // plan.goal_count,
        goal_count=plan.goal_count,
        over_selection=1.0,
        min_rank=RANK,
        max_rank=RANK,
    )
