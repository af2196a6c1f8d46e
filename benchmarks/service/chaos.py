"""Runs on a service that meets faults, and what is left of them in its tables and its store."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from aggregator_service.settings import Role
from benchmarks.service.asking import FaultyAsking, Forgotten
from benchmarks.service.board import Board
from benchmarks.service.device import Device
from benchmarks.service.faults import DatabaseName, Fault, schedule, schedule_sha256
from benchmarks.service.injector import Injector
from benchmarks.service.invariants import check
from benchmarks.service.ledger import Ledger
from benchmarks.service.records import Records, read_records
from benchmarks.service.reproduction import check_adapters
from benchmarks.service.stage import POPULATION, Stage, staged
from benchmarks.service.tiny_bundle import tiny_spec
from benchmarks.service.wire import Key
from hetlora.adapter import AdapterSpec
from hetlora.errors import HetloraError
from hetlora.messages.management import RunSettings

FEATURES: Final = 16
MAX_RANK: Final = 4
DEVICES: Final = 10
MOST_PARTS: Final = 3  # of an update, by the number of its device
LEASE_SECONDS: Final = 4.0
# A device comes back within this, whatever it is told: what is looked for are faults, not manners.
PACE_SECONDS: Final = 0.2
# Once the last fault is over every run commits a round within this, or it is stuck for good.
CALM_SECONDS: Final = 90.0
SETTINGS: Final = {
    "HETLORA_LEAST_RETRY_SECONDS": "0.2",
    "HETLORA_MOST_RETRY_SECONDS": "0.2",
    "HETLORA_WORKER_INTERVAL_SECONDS": "0.2",
    "HETLORA_CLAIM_SECONDS": "1",
    "HETLORA_DATABASE_TIMEOUT_SECONDS": "2",
    "HETLORA_SHUTDOWN_SECONDS": "5",
    "HETLORA_MAX_FAILURES_PER_ROUND": "1000",
    "HETLORA_MAX_REQUESTS_PER_MINUTE": "100000",
}
# Two runs share the devices: one whose state is its adapter, and a buffered one that keeps more, moments and
# wider factors.
RULES: Final[tuple[dict[str, object], ...]] = (
    {"rule": "hetlora"},
    {"rule": "residual_exact", "server_optimizer": {"name": "adam"}, "mode": "buffered"},
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of faults came to; `violations` in words."""

    violations: list[str]
    rounds: int
    updates_accepted: int
    seconds: float
    schedule_sha256: str
    happened: Counter[str]
    answers: Counter[str]
    attempts_abandoned: int
    receipts: int


@dataclass
class Chaos:
    """The parts of one run: devices that work, faults that come between, and the ledger of both."""

    stage: Stage
    seed: int
    board: Board = field(default_factory=Board)
    ledger: Ledger = field(default_factory=Ledger)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, faults: Sequence[Fault]) -> Counter[str]:
        """Let devices work while the faults happen, then wait for calm; answers how often which happened."""
        keys = [Key(self.seed, number) for number in range(DEVICES)]
        self.stage.enrol(keys)
        runs = [self.stage.start_run(_run_settings(rule)) for rule in RULES]
        injector = Injector(self.stage, self.board, self.ledger)
        async with self._supervised(), asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(self._device(key))
            await injector.inject(faults)
            await asyncio.gather(*(replica.up() for replica in self.stage.replicas))
            await self._calm(runs)
            with self.stage.operator() as operator:
                for run in runs:
                    operator.move_run(run, "stop")
            self._over.set()
        return injector.happened

    async def _device(self, key: Key) -> None:
        """One device, visit after visit."""
        ask = FaultyAsking(key, self.stage.ports, self.board, self.ledger, LEASE_SECONDS)
        device = Device(key, POPULATION, ask, parts=1 + key.number % MOST_PARTS)
        rng = np.random.default_rng([self.seed, key.number])
        while not self._over.is_set():
            wait_seconds = float(rng.uniform(0, PACE_SECONDS))
            try:
                visit = await device.visit()
                if visit.receipt is not None:
                    self.ledger.note_receipt(key.device_id, visit.receipt, visit.update_sha256)
                wait_seconds = min(wait_seconds, visit.retry_after_seconds)
            except Forgotten:
                pass
            except (HetloraError, ValidationError) as error:
                self.ledger.violations.append(f"device {key.device_id}: {error}")
            await asyncio.sleep(wait_seconds)
        ask.close()

    async def _calm(self, runs: Sequence[str]) -> None:
        """Wait until every run has committed two rounds more: one that was under way, and a whole one."""
        wanted = {run: count + 2 for run, count in self._committed().items()}
        deadline = time.monotonic() + CALM_SECONDS
        while any(self._committed()[run] < wanted[run] for run in runs):
            if time.monotonic() > deadline:
                late = [run for run in runs if self._committed()[run] < wanted[run]]
                self.ledger.violations.append(
                    f"no round of {late} commits {CALM_SECONDS:.0f} s after the faults"
                )
                return
            await asyncio.sleep(0.2)

    def _committed(self) -> dict[str, int]:
        with self.stage.operator() as operator:
            return {run.run_id: run.rounds_committed for run in operator.runs()}

    @asynccontextmanager
    async def _supervised(self) -> AsyncIterator[None]:
        """Start replicas that end by themselves again, as whatever runs them would."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.2)
                for replica in self.stage.replicas:
                    if not replica.running and not replica.changing.locked():
                        replica.start()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


async def run_chaos(
    folder: Path, *, faults: int, seed: int, database: DatabaseName, replicas: int
) -> Outcome:
    """Meet the faults of a seed and check what is left.

    Args:
        folder: holds all files, an empty one.
    """
    planned = schedule(faults, seed, database=database, replicas=replicas)
    spec = tiny_spec(FEATURES, MAX_RANK)
    started = time.monotonic()
    roles: list[Role] = ["all"] * replicas
    staging = staged(folder, spec, database=database, roles=roles, settings=SETTINGS, movable_clocks=True)
    async with staging as stage:
        chaos = Chaos(stage, seed)
        happened = await chaos.run(planned)
        stage.stop()
        engine = stage.engine()
        records = read_records(engine)
        engine.dispose()
    return _outcome(records, stage, spec, chaos.ledger, happened, planned, time.monotonic() - started)


def _outcome(
    records: Records,
    stage: Stage,
    spec: AdapterSpec,
    ledger: Ledger,
    happened: Counter[str],
    planned: list[Fault],
    seconds: float,
) -> Outcome:
    faults_of_its_own = ledger.answers["500"]  # whatever befalls it is passing, and told so
    violations = [
        *([f"{faults_of_its_own} requests were answered 500"] if faults_of_its_own else []),
        *ledger.violations,
        *check(records, stage.data_dir, ledger),
        *check_adapters(records, stage.data_dir, spec),
    ]
    committed = {row["id"] for row in records.rounds if row["state"] == "committed"}
    return Outcome(
        violations=violations,
        rounds=len(committed),
        updates_accepted=sum(
            row["state"] == "accepted" and row["round_id"] in committed for row in records.assignments
        ),
        seconds=round(seconds, 1),
        schedule_sha256=schedule_sha256(planned),
        happened=happened,
        answers=ledger.answers,
        attempts_abandoned=sum(row["state"] == "abandoned" for row in records.rounds),
        receipts=len(ledger.receipts),
    )


def _run_settings(rule: dict[str, object]) -> RunSettings:
    return RunSettings.model_validate(
        {
            "rounds": 100_000,
            "goal_count": 3,
            "over_selection": 1.5,
            "minimum_share": 0.5,
            "report_window_seconds": 2 * LEASE_SECONDS,
            "lease_seconds": LEASE_SECONDS,
            "max_rank": MAX_RANK,
            **rule,
        }
    )
