"""What real steps took over their forecast, remembered for each bundle on this device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.freshness import DAY_SECONDS, is_fresh
from edge_sdk.planning.forecast import Correction
from edge_sdk.runtimes import name_of
from edge_sdk.runtimes.base import RuntimeFactory
from hetlora import __version__
from hetlora.errors import DeviceTooSmall, UnavailableError
from hetlora.messages.device import CapabilityReport

logger = logging.getLogger(__name__)

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS corrections (
    bundle TEXT PRIMARY KEY,
    circumstances TEXT NOT NULL,
    memory REAL NOT NULL,
    seconds REAL NOT NULL,
    watts REAL,
    taken_at REAL NOT NULL
) WITHOUT ROWID, STRICT
"""
# Trials and evaluations that are under way, or ended with nothing measured: for want of memory, or with their
# process, which the kernel may have killed for that.
_TRIALS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS trials_under_way (
    bundle TEXT NOT NULL,
    circumstances TEXT NOT NULL,
    begun_at REAL NOT NULL,
    PRIMARY KEY (bundle, circumstances)
) WITHOUT ROWID, STRICT
"""
CUT_OFF_SECONDS: Final = 3600.0
# The circumstances of an evaluation: whatever they are, it takes less than a training.
EVALUATION: Final = "evaluation"
# A device has one bundle at a time, or a few.
_MOST_BUNDLES: Final = 64


def circumstances_of(capabilities: CapabilityReport, threads: int | None, runtime: RuntimeFactory) -> str:
    """What a correction depends on beside the bundle; to other sizes and ranks of that it carries over."""
    return str((__version__, capabilities.architecture, capabilities.cores, threads, name_of(runtime)))


class Corrections:
    """Corrections by bundle, believed as long as the probe's rates, under the circumstances of their time.

    Args:
        clock: Unix seconds.

    Raises:
        DiskFull, StoreDamaged, UnavailableError: see `edge_sdk.device_database`.
    """

    def __init__(
        self,
        database: DeviceDatabase,
        *,
        ttl_seconds: float = DAY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        database.make(_TABLE, _TRIALS_TABLE)

    def of(self, bundle: str, circumstances: str) -> Correction | None:
        """What was measured of the bundle with this digest, if that was not too long ago."""
        with self._database.reading() as database:
            row = database.execute(
                "SELECT memory, seconds, watts, taken_at FROM corrections"
                " WHERE bundle = ? AND circumstances = ?",
                (bundle, circumstances),
            ).fetchone()
        if row is None or not is_fresh(row[3], self._clock(), self._ttl_seconds):
            return None
        return Correction(*row[:3])

    def keep(self, bundle: str, circumstances: str, correction: Correction) -> None:
        """Remember what was measured just now, in the place of what was before."""
        row = (bundle, circumstances, correction.memory, correction.seconds, correction.watts, self._clock())
        with self._database.writing() as database:
            database.execute("INSERT OR REPLACE INTO corrections VALUES (?, ?, ?, ?, ?, ?)", row)
            database.execute(
                "DELETE FROM corrections WHERE bundle NOT IN"
                " (SELECT bundle FROM corrections ORDER BY taken_at DESC LIMIT ?)",
                (_MOST_BUNDLES,),
            )

    def check_may_try(self, bundle: str, circumstances: str) -> None:
        """Raise if steps of this bundle ended within the last hour for want of memory, or with their process.

        Raises:
            DeviceTooSmall: they would again.
        """
        with self._database.reading() as database:
            found = database.execute(
                "SELECT begun_at FROM trials_under_way WHERE bundle = ? AND circumstances = ?",
                (bundle, circumstances),
            ).fetchone()
        now = self._clock()
        if found is not None and is_fresh(found[0], now, CUT_OFF_SECONDS):
            raise DeviceTooSmall(
                "steps of this bundle ended for want of memory, or with their process",
                got=f"{now - found[0]:.0f} s ago",
                expected=f"to be tried again after {CUT_OFF_SECONDS:.0f} s",
            )

    @contextmanager
    def trying(self, bundle: str, circumstances: str) -> Iterator[None]:
        """Note that steps are under way; the note stays where they end in a MemoryError.

        On a full disk there is no note, or it stays: neither is a reason to leave the work.

        Raises:
            DeviceTooSmall: see `check_may_try`.
        """
        self.check_may_try(bundle, circumstances)
        now = self._clock()
        self._change("DELETE FROM trials_under_way WHERE begun_at <= ?", (now - CUT_OFF_SECONDS,))
        self._change("INSERT OR REPLACE INTO trials_under_way VALUES (?, ?, ?)", (bundle, circumstances, now))
        try:
            yield
        except MemoryError:
            raise
        except BaseException:
            self._forget_trial(bundle, circumstances)
            raise
        self._forget_trial(bundle, circumstances)

    def _forget_trial(self, bundle: str, circumstances: str) -> None:
        self._change(
            "DELETE FROM trials_under_way WHERE bundle = ? AND circumstances = ?", (bundle, circumstances)
        )

    def _change(self, statement: str, values: tuple[str | float, ...]) -> None:
        try:
            with self._database.writing() as database:
                database.execute(statement, values)
        except UnavailableError as error:
            logger.warning("event=trial_not_noted error=%s", error)
