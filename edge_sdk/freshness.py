"""For how long a device believes what it found out before."""

from __future__ import annotations

from typing import Final

DAY_SECONDS: Final = 24 * 3600.0


def is_fresh(taken_at: float, now: float, seconds: float = DAY_SECONDS) -> bool:
    """Whether this is of the last so many seconds, by two readings of Unix time.

    What is from the future is not believed: the clock was wrong then, or is now.
    """
    return 0 <= now - taken_at < seconds
