"""Which faults are tried again, and after how long."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx
import stamina

from hetlora.errors import BodyTooSlow, ChecksumMismatch, ReplayedRequest, TooManyRequests
from hetlora.messages.common import error_of_answer

logger = logging.getLogger(__name__)
# stamina warns of each retry without its cause, on standard error where an app configured no logging.
logging.getLogger("stamina").addHandler(logging.NullHandler())
Result = TypeVar("Result")

# Eight tries outlast a service that restarts (about 16 s of waiting on average), and give up in the time that
# somebody would wait before looking for the fault.
MAX_TRIES: Final = 8
FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 8.0
# A visit that would wait longer ends, and another comes later.
LONGEST_RETRY_AFTER_SECONDS: Final = 60.0
_PASSING: Final = {TooManyRequests.status, BodyTooSlow.status, ChecksumMismatch.status}
# Doublings beyond this change nothing under any bound, and at a thousand of them floats overflow.
_MOST_DOUBLINGS: Final = 64


class ErrorAnswer(Exception):
    """An answer that is no success, its body not parsed yet."""

    def __init__(self, status: int, body: bytes, retry_after_seconds: float) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after_seconds = retry_after_seconds


def full_jitter(
    failures: int,
    asked_seconds: float,
    jitter: random.Random,
    *,
    first_seconds: float,
    longest_seconds: float,
) -> float:
    """How long to wait after so many failures in a row: never less than what the service asked for.

    To that comes a time drawn from zero to a bound that doubles with each failure, so that devices which
    failed together do not come back together (Brooker, "Exponential Backoff And Jitter", 2015).
    """
    bound = min(longest_seconds, first_seconds * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    return asked_seconds + jitter.uniform(0, bound)


def retrying(
    action: Callable[[], Result], jitter: random.Random, sleep: Callable[[float], None] | None = None
) -> Result:
    """Call `action` until it succeeds, or fails for good: the last of `MAX_TRIES` raises what it met.

    `sleep` waits between tries, in seconds; None is the system's.
    """
    for attempt in stamina.retry_context(on=_backoff(jitter, sleep), attempts=MAX_TRIES, timeout=None):
        with attempt:
            return action()
    raise AssertionError("the last try either returns or raises")


def _backoff(
    jitter: random.Random, sleep: Callable[[float], None] | None
) -> Callable[[Exception], bool | float]:
    tries = 0

    def wait_seconds(error: Exception) -> bool | float:
        nonlocal tries
        tries += 1
        if not _is_worth_another_try(error):
            return False
        logger.info("try=%d of=%d event=failed error=%r", tries, MAX_TRIES, error)
        seconds = full_jitter(
            tries,
            error.retry_after_seconds if isinstance(error, ErrorAnswer) else 0.0,
            jitter,
            first_seconds=FIRST_WAIT_SECONDS,
            longest_seconds=LONGEST_WAIT_SECONDS,
        )
        if sleep is None:
            return seconds
        if tries < MAX_TRIES:
            sleep(seconds)
        return 0.0

    return wait_seconds


def _is_worth_another_try(error: Exception) -> bool:
    if isinstance(error, ErrorAnswer):
        # 460: damaged on its way; 408: held up on it.
        passing = error.status >= 500 or error.status in _PASSING
        passing = passing or _is_replay(error)
        return passing and error.retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS
    if isinstance(error, httpx.ProxyError):
        # Its text begins with the status: a password that the proxy refuses (407) may lock an account.
        return not str(error).startswith("4")
    return isinstance(error, httpx.TransportError)


def _is_replay(answer: ErrorAnswer) -> bool:
    told = error_of_answer(answer.status, answer.body, service_url="")
    return isinstance(told, ReplayedRequest)


def asked_seconds(headers: httpx.Headers) -> float:
    """How long an answer asks to be left alone (Retry-After, RFC 9110); 0 if it does not say.

    A date is reckoned from the answer's own `Date`: the device's clock may be wrong.
    """
    asked = headers.get("Retry-After", "")
    if re.fullmatch("[0-9]{1,9}", asked):
        return float(asked)
    try:
        until, now = parsedate_to_datetime(asked), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):  # no date, or one without its zone
        return 0.0
