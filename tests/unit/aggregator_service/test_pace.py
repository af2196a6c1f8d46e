"""When devices of small and large populations come back."""

from __future__ import annotations

import math
from collections import Counter
from heapq import heapify, heappop, heappush

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.pace.pace import Pace, retry_after_seconds

NOON = 1_800_000_000.0
PACE = Pace(check_ins_per_second=100, least_seconds=5, most_seconds=6 * 3600)


def arrivals(live: int, now: list[float], use_at: float | None = None) -> np.ndarray:
    """When devices come that ask at these times; each is one of `live`."""
    return np.array(
        [at + retry_after_seconds(PACE, f"device-{n}", at, live, use_at) for n, at in enumerate(now)]
    )


@given(
    least=st.floats(0.01, 1e4),
    more=st.floats(0, 1e6),
    rate=st.floats(1e-3, 1e5),
    live=st.integers(1, 10**8),
    now=st.floats(0, 4e9),
    use_in=st.none() | st.floats(-1e7, 1e7),
)
def test_every_answer_is_within_the_bounds(
    least: float, more: float, rate: float, live: int, now: float, use_in: float | None
) -> None:
    pace = Pace(rate, least, least + more)
    use_at = None if use_in is None else now + use_in
    assert least <= retry_after_seconds(pace, "device", now, live, use_at) <= least + more


@given(live=st.integers(1, 10**6), now=st.floats(1e9, 2e9), use_in=st.floats(5, 3600))
def test_nobody_comes_before_there_is_use_for_him(live: int, now: float, use_in: float) -> None:
    wait = retry_after_seconds(PACE, "device", now, live, now + use_in)
    assert wait >= min(use_in, PACE.most_seconds - 2 * PACE.period_seconds(live)) - 1e-6


def test_answer_depends_on_device_and_time_alone() -> None:
    first, again = (retry_after_seconds(PACE, "device", NOON, 10**6) for _ in range(2))
    assert first == again
    assert retry_after_seconds(PACE, "other", NOON, 10**6) != first


def test_hundred_devices_that_asked_at_any_time_meet_within_a_second() -> None:
    rng = np.random.default_rng(1)
    # W = 100 / 100 = 1 s, P = 2 least = 10 s. Asked within one period: they come in the two next windows.
    came = arrivals(100, list(NOON + rng.uniform(0, 10, 100)))
    windows = Counter(np.floor(came / 10))
    assert len(windows) == 2
    assert max(came % 10) < 1
    # And from then on in one, and all of them: the next window is 10 s away, give or take one.
    for _ in range(5):
        came = arrivals(100, list(came))
        assert max(came % 10) < 1


def test_hundred_devices_meet_when_the_next_round_is_likely_to_begin() -> None:
    rng = np.random.default_rng(1)
    came = arrivals(100, list(NOON + rng.uniform(0, 200, 100)), use_at=NOON + 333)
    assert (came >= NOON + 333).all()
    assert (came < NOON + 334).all()


@pytest.mark.parametrize("asked_within", [0.5, 100.0])
def test_ten_thousand_devices_arrive_evenly_also_after_all_came_at_once(asked_within: float) -> None:
    rng = np.random.default_rng(1)
    # W = P = 100 s, R = 100 a second.
    came = arrivals(10_000, list(NOON + rng.uniform(0, asked_within, 10_000)))
    for _ in range(4):
        came = arrivals(10_000, list(came))
    times, times_after = came, arrivals(10_000, list(came))
    # Of two visits in a row of each device, those of a whole window that lies between all of them.
    visits = np.concatenate([times, times_after])
    middle = np.floor(np.median(visits) / 100) * 100
    in_window = visits[(visits >= middle) & (visits < middle + 100)]
    assert 0.9 * 10_000 <= len(in_window) <= 1.01 * 10_000
    by_second = np.bincount((in_window - middle).astype(int), minlength=100)
    # 100 a second, give or take four standard deviations of 10.
    assert by_second.max() <= 140
    assert by_second.min() >= 50


@pytest.mark.parametrize("live", [100, 900, 10_000])
@pytest.mark.parametrize("round_seconds", [3.0, 7.0, 60.0])
def test_rate_is_kept_however_soon_one_round_follows_another(live: int, round_seconds: float) -> None:
    rng = np.random.default_rng(1)
    coming = [(NOON + float(at), device) for device, at in enumerate(rng.uniform(0, 100, live))]
    heapify(coming)
    came = []
    while coming[0][0] < NOON + 400:
        now, device = heappop(coming)
        came.append(now)
        ends = NOON + math.ceil((now - NOON) / round_seconds) * round_seconds
        heappush(coming, (now + retry_after_seconds(PACE, f"device-{device}", now, live, ends), device))
    settled = np.array(came) - NOON
    settled = settled[settled > 200]
    # N / P a second: 100 / (2 least) = 10, and 10 000 / 100 = 100.
    wanted = live / PACE.period_seconds(live)
    assert len(settled) / 200 <= 1.15 * wanted
    if live == 10_000:  # a few of a large population have two slots within `least`, and leave one out
        assert len(settled) / 200 >= 0.9 * wanted


@pytest.mark.parametrize("one_of", [100, pytest.param(1, marks=pytest.mark.slow)])
def test_million_devices_that_come_at_once_are_spread_over_what_the_rate_asks_for(one_of: int) -> None:
    # W = P = 10 000 s, nearly three hours. Of the million every hundredth is looked at, or each.
    asking = 10**6 // one_of
    waits = arrivals(10**6, [NOON] * asking) - NOON
    by_window = np.bincount((waits // 500).astype(int), minlength=40)
    wanted = 500 * 100 / one_of
    within = 4 * np.sqrt(wanted)  # four standard deviations
    assert (np.abs(by_window[1:19] - wanted) <= within).all()
    assert by_window.max() <= wanted + within
    assert waits.max() < 20_000


def test_first_places_go_to_others_each_time() -> None:
    def order(period: int) -> list[int]:
        came = arrivals(100, [NOON + 10 * period] * 100)
        return list(np.argsort(came)[:10])

    assert len({*order(0), *order(1), *order(2), *order(3)}) > 20
