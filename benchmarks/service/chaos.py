"""Runs on a service that meets faults, until it is calm again."""

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
from benchmarks.service.faults import DatabaseName, Fault, schedule
from benchmarks.service.injector import Injector
from benchmarks.service.ledger import Ledger
from benchmarks.service.outcome import Outcome, outcome_of
from benchmarks.service.records import read_records
from benchmarks.service.stage import POPULATION, Stage, staged
from benchmarks.service.stores import StoreName
from benchmarks.service.tiny_bundle import tiny_spec
from benchmarks.service.wire import Key
from hetlora.errors import HetloraError
from hetlora.messages.management import RunSettings

FEATURES: Final = 16
MAX_RANK: Final = 4
DEVICES: Final = 14
MOST_PARTS: Final = 3  # of an update, by the number of its device
WITHOUT_HELD_OUT: Final = 5  # of so many devices, one
LEASE_SECONDS: Final = 4.0
# A device comes back within this, whatever it is told: what is looked for are faults, not manners.
PACE_SECONDS: Final = 0.2
# Once the last fault is over every run commits a round within this, or it is stuck for good.
CALM_SECONDS: Final = 90.0
MORE: Final = {"rounds": 2, "evaluations": 1}
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
EVALUATION: Final = {
    "every_rounds": 2,
    "devices": 5,
    "minimum_reports": 3,
    "window_seconds": 3 * LEASE_SECONDS,
}
# Two runs share the devices: one whose state is its adapter, with evaluations, and a buffered one that keeps
# more, moments and wider factors.
RULES: Final[tuple[dict[str, object], ...]] = (
    {"rule": "hetlora", "evaluation": EVALUATION},
    {"rule": "residual_exact", "server_optimizer": {"name": "adam"}, "mode": "buffered"},
)


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
        parts, held_out_count = 1 + key.number % MOST_PARTS, 10 if key.number % WITHOUT_HELD_OUT else 0
        device = Device(key, POPULATION, ask, parts, held_out_count)
        rng = np.random.default_rng([self.seed, key.number])
        while not self._over.is_set():
            wait_seconds = float(rng.uniform(0, PACE_SECONDS))
            try:
                visit = await device.visit()
                if visit.receipt is not None:
                    self.ledger.note_receipt(
                        key.device_id, visit.receipt, update_sha256=visit.update_sha256, report=visit.report
                    )
                wait_seconds = min(wait_seconds, visit.retry_after_seconds)
            except Forgotten:
                pass
            except (HetloraError, ValidationError) as error:
                self.ledger.violations.append(f"device {key.device_id}: {error}")
            await asyncio.sleep(wait_seconds)
        ask.close()

    async def _calm(self, runs: Sequence[str]) -> None:
        """Wait until each run has committed a whole round more, and the evaluated one has figures of another.

        Two are waited for: one may have been under way.
        """
        before = self._done(runs)
        deadline = time.monotonic() + CALM_SECONDS
        while late := {
            name: has for name, has in self._done(runs).items() if has < before[name] + MORE[name[0]]
        }:
            if time.monotonic() > deadline:
                for (what, run), has in late.items():
                    self.ledger.violations.append(
                        f"{CALM_SECONDS:.0f} s after the faults {what} of run {run} are {has}, "
                        f"and were {before[what, run]}"
                    )
                return
            await asyncio.sleep(0.2)

    def _done(self, runs: Sequence[str]) -> dict[tuple[str, str], int]:
        """The committed rounds of each run and, of one that is evaluated, its evaluations with figures."""
        done = {}
        with self.stage.operator() as operator:
            for run in map(operator.run, runs):
                done["rounds", run.run_id] = run.rounds_committed
                if run.settings.evaluation is not None:
                    versions = operator.adapters(run.run_id)
                    told = [version.evaluation for version in versions if version.evaluation is not None]
                    done["evaluations", run.run_id] = sum(one.figures is not None for one in told)
        return done

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
    folder: Path,
    *,
    faults: int,
    seed: int,
    database: DatabaseName,
    replicas: int,
    store: StoreName = "folder",
) -> Outcome:
    """Meet the faults of a seed and check what is left.

    Args:
        folder: holds all files, an empty one.
    """
    planned = schedule(faults, seed, database=database, replicas=replicas, store=store)
    spec = tiny_spec(FEATURES, MAX_RANK)
    started = time.monotonic()
    roles: list[Role] = ["all"] * replicas
    staging = staged(
        folder,
        spec,
        database=database,
        roles=roles,
        settings=SETTINGS,
        store=store,
        movable_clocks=True,
    )
    async with staging as stage:
        chaos = Chaos(stage, seed)
        happened = await chaos.run(planned)
        stage.stop()
        engine = stage.engine()
        records = read_records(engine)
        engine.dispose()
        # A bucket ends with the block.
        return outcome_of(records, stage, spec, chaos.ledger, happened, planned, time.monotonic() - started)


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
