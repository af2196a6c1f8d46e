"""Rates that were measured before: to measure them again takes a second of the device's time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from edge_sdk.freshness import DAY_SECONDS, is_fresh
from hetlora.messages.common import FirstVersion, Message

logger = logging.getLogger(__name__)

_MOST_BYTES: Final = 64 * 1024


class _Entry(Message):
    circumstances: str
    per_second: float = Field(gt=0)
    taken_at: float  # Unix seconds


class _File(Message):
    schema_version: FirstVersion = 1
    rates: dict[str, _Entry] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptRate:
    """A rate, and how long ago it was measured."""

    per_second: float
    age_seconds: float


class RateCache:
    """Rates by name in one file; each is forgotten when its time is up, or the circumstances are others.

    A file that is torn, too large or not ours is as good as none, and one that cannot be written costs the
    time of measuring again. Two processes that write at once lose at most what one of them kept.

    Args:
        path: the file; None remembers nothing.
        ttl_seconds: for how long a rate is believed.
        fresh: measure whatever the file has, and keep that.
        clock: Unix seconds.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        ttl_seconds: float = DAY_SECONDS,
        fresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._ttl_seconds = ttl_seconds
        self._fresh = fresh
        self._clock = clock

    def rate(self, name: str, circumstances: str, measure: Callable[[], float | None]) -> KeptRate | None:
        """The rate of this name under these circumstances, recalled or else measured; None is unknown.

        What is unknown is asked for again the next time.
        """
        kept = None if self._fresh else self.recall(name, circumstances)
        if kept is not None:
            return kept
        measured = measure()
        return None if measured is None else self.keep(name, circumstances, measured)

    def recall(self, name: str, circumstances: str) -> KeptRate | None:
        """The rate that was kept, if that was under these circumstances and not too long ago."""
        entry = self._read().rates.get(name)
        if entry is None or entry.circumstances != circumstances:
            return None
        now = self._clock()
        if not is_fresh(entry.taken_at, now, self._ttl_seconds):
            return None
        return KeptRate(entry.per_second, now - entry.taken_at)

    def keep(self, name: str, circumstances: str, per_second: float) -> KeptRate:
        """Remember a rate that was measured just now, in the place of the one before."""
        entry = _Entry(circumstances=circumstances, per_second=per_second, taken_at=self._clock())
        self._write(_File(rates=self._read().rates | {name: entry}))
        return KeptRate(per_second, 0.0)

    def _read(self) -> _File:
        if self._path is None:
            return _File()
        try:
            with self._path.open("rb") as file:
                return _File.model_validate_json(file.read(_MOST_BYTES))
        except (OSError, ValidationError):
            return _File()

    def _write(self, file: _File) -> None:
        if self._path is None:
            return
        aside = self._path.with_suffix(".part")
        try:
            aside.write_bytes(file.model_dump_json().encode())
            os.replace(aside, self._path)
        except OSError as error:
            logger.warning("file=%s event=rate_not_kept error=%s", self._path.name, error)
