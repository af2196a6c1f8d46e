"""Whether this process can do its work now: each part is asked, none for longer than a probe waits."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from aggregator_service.observability.single_flight import SingleFlight
from aggregator_service.service import Service
from aggregator_service.storage.schema import is_read_only, newest_revision, revision_of
from aggregator_service.storage.tables import RoundRow
from aggregator_service.worker.worker import Worker
from hetlora.errors import HetloraError, UnavailableError
from hetlora.states import RoundState

log = logging.getLogger(__name__)

DATABASE_SECONDS: Final = 1.0
STORE_SECONDS: Final = 3.0
# A tick without an aggregation takes milliseconds, and a sweep of a large bucket some minutes.
STALLED_SECONDS: Final = 300.0
STALLED_TICKS: Final = 10


class Readiness:
    """The parts of a process: database, object store, and the round worker where there is one."""

    def __init__(self, service: Service, worker: Worker | None) -> None:
        self._service, self._worker = service, worker
        self._newest = newest_revision()
        self._parts: dict[str, tuple[SingleFlight[None], float]] = {
            "database": (SingleFlight("ask-database", self._ask_database), DATABASE_SECONDS),
            "object store": (SingleFlight("ask-store", service.store.check), STORE_SECONDS),
        }
        if worker is not None:
            self._parts["round worker"] = (SingleFlight("ask-worker", self._ask_worker), DATABASE_SECONDS)

    async def check(self) -> None:
        """Ask all parts at once.

        Raises:
            UnavailableError: some part does not work, or does not answer in time; each is named.
        """
        answers = await asyncio.gather(*(self._fault_of(name) for name in self._parts))
        faults = [fault for fault in answers if fault is not None]
        if faults:
            raise UnavailableError("this process is not ready", got=", ".join(faults))

    async def _fault_of(self, name: str) -> str | None:
        flight, seconds = self._parts[name]
        try:
            await asyncio.wait_for(asyncio.wrap_future(flight.ask()), seconds)
        except TimeoutError:
            return f"{name}: no answer within {seconds:g} s"
        except HetloraError as error:
            return f"{name}: {error}"
        except Exception as error:  # whose words may name addresses and users
            log.warning("part=%s ready=no error=%s", name, error)
            return f"{name}: {type(error).__name__}"
        return None

    def _ask_database(self) -> None:
        engine = self._service.database.engine
        if is_read_only(engine):
            raise UnavailableError("only to be read", expected="a primary that takes writes")
        revision = revision_of(engine)
        if revision != self._newest:
            raise UnavailableError("the tables are of another hetlora", got=revision, expected=self._newest)

    def _ask_worker(self) -> None:
        assert self._worker is not None
        if not self._worker.is_alive():
            raise UnavailableError("the thread has ended", expected="a restart of the service")
        service, ticked_at = self._service, self._worker.ticked_at
        longest = max(STALLED_SECONDS, STALLED_TICKS * service.settings.worker_interval_seconds)
        now = service.clock()
        if ticked_at is None or now - ticked_at <= timedelta(seconds=longest):
            return
        # A round may take longer than any limit; its claim is renewed as long as the worker holds it.
        own = select(RoundRow.id).where(
            RoundRow.state == RoundState.AGGREGATING,
            RoundRow.claimed_by == service.name,
            RoundRow.claimed_until > now,
        )
        with service.database.read() as session:
            if session.scalar(own.limit(1)) is None:
                age_seconds = (now - ticked_at).total_seconds()
                raise UnavailableError(
                    "no sign of life",
                    got=f"the last one {age_seconds:.0f} s ago",
                    expected=f"{longest:.0f} s",
                )
