"""Has the faults of a schedule happen."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from benchmarks.service.board import Armed, Board
from benchmarks.service.faults import OF_A_REPLICA, OF_THE_STORE, Fault
from benchmarks.service.ledger import Ledger
from benchmarks.service.replica import Replica
from benchmarks.service.stage import Stage
from hetlora.errors import HetloraError

log = logging.getLogger(__name__)

AT_ONCE: Final = 6
# A request of each kind comes many times in this, whatever else happens.
BEFALL_SECONDS: Final = 120.0
# Half of the clock's jumps are within what a signature may be old, the others beyond; none reaches the days
# after which updates are dropped, as that would lose them by the rules.
SMALL_JUMP_SECONDS: Final = 290.0
LARGE_JUMP_SECONDS: Final = 7200.0
LONGEST_DELAY_SECONDS: Final = 0.3
# Beyond the 8 s for which the service waits for a bucket that says nothing.
LONGEST_AWAY_SECONDS: Final = 12.0


@dataclass
class Injector:
    """Sends every fault to where it happens; several may be under way at once."""

    stage: Stage
    board: Board
    ledger: Ledger
    happened: Counter[str] = field(default_factory=Counter)
    _clocks_wrong: int = 0
    _database: asyncio.Lock = field(default_factory=asyncio.Lock)
    _store: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def inject(self, faults: Sequence[Fault]) -> None:
        """All faults, in the order and at the distances of their schedule."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(fault: Fault) -> None:
            try:
                await self._happen(fault)
                self.happened[fault.kind] += 1
                log.info("fault=%d kind=%s happened", fault.number, fault.kind)
            except HetloraError as error:  # the service, or its database, did not come back from it
                self.ledger.violations.append(f"after fault {fault.number}, {fault.kind}: {error}")
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(fault.after_seconds)
                await slots.acquire()
                group.create_task(one(fault))

    async def _happen(self, fault: Fault) -> None:
        replica = self.stage.replicas[fault.replica]
        if fault.kind in OF_A_REPLICA:
            async with replica.changing:
                await self._to_replica(fault, replica)
        elif fault.kind in OF_THE_STORE:
            async with self._store:
                await self._to_store(fault)
        elif fault.kind == "database_held":
            await asyncio.to_thread(self._hold_database, 0.2 + 3 * fault.amount)
        elif fault.kind == "connections_cut":
            await asyncio.to_thread(self._cut_connections, fault.amount)
        elif fault.kind == "database_killed":
            async with self._database:
                await asyncio.to_thread(self._kill_database)
        else:
            await self._to_request(fault)

    async def _to_replica(self, fault: Fault, replica: Replica) -> None:
        match fault.kind:
            case "kill":
                replica.kill()
                await asyncio.sleep(0.3 * fault.amount)
                replica.start()
                if fault.amount < 0.8:  # else the next fault may meet it while it starts
                    await replica.up()
            case "hang":
                replica.hang()
                await asyncio.sleep(0.3 + 2 * fault.amount)
                replica.go_on()
            case "disk_full":
                replica.limit_files(0)
                await asyncio.sleep(0.2 + fault.amount)
                replica.limit_files(-1)
            case "clock_jump":
                await self._jump(fault, replica)
            case _:
                raise AssertionError(f"a replica cannot be {fault.kind}")

    async def _jump(self, fault: Fault, replica: Replica) -> None:
        # 0 to 1 is -1 to 1, four times over: small back, small on, far back, far on.
        quarter, rest = divmod(4 * fault.amount, 1)
        longest = SMALL_JUMP_SECONDS if quarter < 2 else LARGE_JUMP_SECONDS
        self._clocks_wrong += 1
        self.board.clocks_right_since = math.inf
        replica.put_clock_wrong(longest * rest if quarter % 2 else -longest * rest)
        await asyncio.sleep(0.5 + 1.5 * rest)
        replica.put_clock_wrong(0)
        self._clocks_wrong -= 1
        if not self._clocks_wrong:  # a second, for what is under way by the wrong time
            self.board.clocks_right_since = time.monotonic() + 1

    async def _to_store(self, fault: Fault) -> None:
        """The bucket hangs or, in half of the cases, refuses all; or it is slow."""
        assert self.stage.bucket is not None
        server, gate = self.stage.bucket.server, self.stage.bucket.gate
        if fault.kind == "store_slow":
            gate.delay_seconds = LONGEST_DELAY_SECONDS * fault.amount
            await asyncio.sleep(0.5 + 2 * fault.amount)
            gate.delay_seconds = 0.0
            return
        half, share = divmod(2 * fault.amount, 1)
        away, back = (server.hang, server.go_on) if half else (gate.shut, gate.open)
        away()
        await asyncio.sleep(0.3 + LONGEST_AWAY_SECONDS * share)
        back()

    async def _to_request(self, fault: Fault) -> None:
        armed = Armed(fault)
        self.board.waiting.append(armed)
        try:
            await asyncio.wait_for(armed.done.wait(), BEFALL_SECONDS)
        except TimeoutError:
            self.ledger.violations.append(
                f"no device came to {fault.step} in {BEFALL_SECONDS:.0f} s (fault {fault.number})"
            )

    def _kill_database(self) -> None:
        assert self.stage.postgresql is not None
        self.stage.postgresql.kill()
        self.board.database_died_at.append(time.monotonic())
        self.stage.postgresql.start()

    def _hold_database(self, seconds: float) -> None:
        """Keep everybody from writing for a while."""
        lock = "BEGIN IMMEDIATE" if self.stage.postgresql is None else "LOCK TABLE runs IN EXCLUSIVE MODE"

        def hold(connection: Connection) -> None:
            connection.exec_driver_sql(lock)
            time.sleep(seconds)
            connection.rollback()

        self._at_database(hold)

    def _cut_connections(self, amount: float) -> None:
        """End one connection of the service or, in half of the cases, all of them."""
        own = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        limit = "ORDER BY random() LIMIT 1" if amount < 0.5 else ""
        cut = text(f"SELECT pg_terminate_backend(pid) FROM (SELECT pid {own} {limit}) AS them")
        self._at_database(lambda connection: connection.execute(cut))

    def _at_database(self, act: Callable[[Connection], object]) -> None:
        """Act on a connection of the injector's own, which another fault may cut, or keep from being made."""
        engine = self.stage.engine()
        try:
            with engine.connect() as connection:
                act(connection)
        except OperationalError as error:
            log.info("fault=interrupted by another error=%s", error.orig)
        finally:
            engine.dispose()
