"""Visits again and again, at the pace that the service asks for; more seldom where none comes off."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from edge_sdk.session.visit import Visit, places_of
from edge_sdk.transport.retries import full_jitter
from hetlora.errors import HetloraError, InputError, RefusedError, UnavailableError

logger = logging.getLogger(__name__)

# How long is waited after a visit that did not come off: doubling, with full jitter, up to five minutes.
FIRST_ABSENCE_SECONDS: Final = 5.0
LONGEST_ABSENCE_SECONDS: Final = 300.0
# Whatever a service asks for: a device that comes back at once, without end, empties its battery; one that
# never does is lost.
SHORTEST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 7 * 24 * 3600.0


def keep_visiting(
    visit_once: Callable[[], Visit], stop: threading.Event, on_visit: Callable[[Visit], None]
) -> None:
    """Visit until `stop` is set; a visit under way is finished first.

    Raises:
        RefusedError: the service does not admit this device.
        InputError: something of it cannot be used, a damaged store for one, which no waiting mends.
    """
    absences = 0
    jitter = random.Random()
    while not stop.is_set():
        try:
            visit = visit_once()
        except (RefusedError, InputError):
            raise
        except Exception as error:  # this device is ill too: a full disk, an app that raises at an event
            absences += 1
            wait_seconds = full_jitter(
                absences,
                _asked_seconds(error),
                jitter,
                first_seconds=FIRST_ABSENCE_SECONDS,
                longest_seconds=LONGEST_ABSENCE_SECONDS,
            )
            _log(error, wait_seconds)
        else:
            absences = 0
            wait_seconds = max(SHORTEST_WAIT_SECONDS, min(visit.retry_after_seconds, LONGEST_WAIT_SECONDS))
            on_visit(visit)
        stop.wait(wait_seconds)


def _log(error: Exception, wait_seconds: float) -> None:
    # What others say may quote an example.
    told = f"{error.code}: {error}" if isinstance(error, HetloraError) else type(error).__name__
    logger.warning("event=visit_failed retry_seconds=%.1f error=%s", wait_seconds, told)
    if not isinstance(error, HetloraError):
        logger.error("event=visit_failed raised_at=\n%s", places_of(error))


def _asked_seconds(error: Exception) -> float:
    """How long the service asked to be left alone, if it did."""
    asked = error.retry_after_seconds if isinstance(error, UnavailableError) else None
    return min(asked or 0.0, LONGEST_WAIT_SECONDS)
