"""When a device comes back: a formula for pace steering (Bonawitz et al., arXiv 1902.01046, section 2.3).

With N live devices, R check-ins per second wanted, and bounds `least` and `most`, all in seconds,

    window  W = N / R                                    how long N devices take to arrive, R a second
    period  P = min(max(W, 2 least), (most - least) / 2)
    slot    s_k = a + k P + u_k min(W, P)                u_k in [0, 1), of the device and of the time a + k P

a device comes at its first slot that is no sooner than `least` from now and no sooner than there is use for
it. In a small population, W < P, `a` is when that will be, if known; else it is 0, on the clock that all
share. The answer is never above `most`, so that a use further off than most - 2 P counts as that.

What follows (tests hold it):
- A large population (W >= 2 least) has P = W: each device has one slot a period, so that arrivals are even, R
  a second, whenever they were sent off and however soon one round follows another.
- Of a small one, whoever asked when, all meet within W, at the rate R, once a period; after a round, in the
  moment when the next is likely to start. No process has to remember whom it sent when.
- u_k is another one each period, so that no device is always among the first.
- Where N / P is above R, as `most` does not let devices stay away longer, the bound goes before the rate.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """What the operator wants: a rate, and bounds between which every answer lies, in seconds."""

    check_ins_per_second: float
    least_seconds: float
    most_seconds: float

    def window_seconds(self, live_devices: int) -> float:
        """W: how long so many devices take to arrive at the rate that is wanted."""
        return live_devices / self.check_ins_per_second

    def period_seconds(self, live_devices: int) -> float:
        """P: how often each of so many devices comes; 0 where the bounds leave no choice."""
        longest = (self.most_seconds - self.least_seconds) / 2
        return min(max(self.window_seconds(live_devices), 2 * self.least_seconds), longest)


def retry_after_seconds(
    pace: Pace, device_id: str, now: float, live_devices: int, use_at: float | None = None
) -> float:
    """How long a device is to stay away, from `least_seconds` to `most_seconds`.

    Args:
        now: seconds since 1970.
        live_devices: how many devices share the rate, this one included.
        use_at: when there is use for the device; unknown, or at any time, if None.
    """
    period = pace.period_seconds(live_devices)
    if period <= 0:
        return pace.least_seconds
    window = min(pace.window_seconds(live_devices), period)
    use = 0.0 if use_at is None else min(use_at, now + pace.most_seconds - 2 * period)
    anchor = use if window < period else 0.0
    soonest = max(now + pace.least_seconds, use)
    number = math.floor((soonest - anchor) / period)
    slot = _slot(device_id, anchor + number * period, window)
    if slot < soonest:
        slot = _slot(device_id, anchor + (number + 1) * period, window)
    # Only rounding can take it beyond either.
    return min(max(slot - now, pace.least_seconds), pace.most_seconds)


def _slot(device_id: str, start: float, window: float) -> float:
    """A moment of the window that begins at `start`: even over devices, and over the windows of one."""
    digest = hashlib.blake2b(f"{device_id}:{start:.3f}".encode(), digest_size=8).digest()
    return start + window * int.from_bytes(digest, "big") / 2**64
