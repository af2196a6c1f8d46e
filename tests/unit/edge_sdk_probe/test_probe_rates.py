"""How rates are measured, and for how long they are believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_systems import LAPTOP, recorded
from threadpoolctl import ThreadpoolController

from edge_sdk.probe.bandwidth import measure_bandwidth
from edge_sdk.probe.bursts import good_of
from edge_sdk.probe.cache import RateCache
from edge_sdk.probe.matmul import measure_matmul, measure_model_matmul
from edge_sdk.probe.model_shape import LayerShape, ModelShape
from edge_sdk.probe.rates import download_rate, keep_download_rate

MIB = 2**20
NOW = 1_800_000_000.0


def test_rate_comes_from_the_best_try() -> None:
    # Reads of the clock: deadline, then per try the loop's look, start, end. Tries of 4 s and 2 s:
    # 2 * 32 * 64^3 operations in 2 s.
    ticks: Iterator[float] = iter([0, 1, 1, 5, 6, 6, 8, 11])
    assert measure_matmul(seconds=10, timer=lambda: next(ticks)) == 32 * 64.0**3


def test_slow_machine_gets_one_try_beyond_the_time() -> None:
    ticks: Iterator[float] = iter([0, 99, 100, 104, 105])
    assert measure_matmul(seconds=1, timer=lambda: next(ticks)) == 2 * 32 * 64.0**3 / 4


def test_good_time_is_the_one_that_a_tenth_is_better_than() -> None:
    assert good_of([3.0, 1.0, 2.0]) == 1.0
    assert good_of([float(number) for number in range(30, 0, -1)]) == 4.0
    assert good_of([0.0]) > 0


def test_layers_of_a_model_count_as_often_as_they_come() -> None:
    # Three of 2 * 4 * 8 * 8 = 512 operations that take 2 s, one of 2 * 4 * 8 * 16 = 1024 that takes 4 s:
    # 3 * 512 + 1024 operations in 3 * 2 + 4 s.
    shape = ModelShape(4, (LayerShape(8, 8, 3), LayerShape(8, 16, 1)))
    ticks: Iterator[float] = iter([0, 0, 0, 2, 99, 100, 100, 100, 104, 199])
    assert measure_model_matmul(shape, seconds=2, timer=lambda: next(ticks)) == 256.0


def test_blas_has_its_threads_back_after_the_model_was_tried() -> None:
    def threads() -> list[int]:
        libraries = ThreadpoolController().select(user_api="blas").info()
        return [library["num_threads"] for library in libraries]

    during: list[list[int]] = []

    def timer() -> float:
        during.append(threads())
        return float(len(during))

    before = threads()
    rate = measure_model_matmul(ModelShape(4, (LayerShape(8, 8, 1),)), seconds=1, timer=timer)
    assert rate is not None
    assert during[0] == [1] * len(before)
    assert threads() == before


def test_bandwidth_counts_what_is_read_and_what_is_written(tmp_path: Path) -> None:
    # The laptop's cache has 8 MiB, two of which are 16 MiB; two tries of 4 s and 2 s.
    ticks: Iterator[float] = iter([0, 1, 1, 5, 6, 6, 8, 11])
    laptop = recorded(tmp_path, LAPTOP)
    assert measure_bandwidth(laptop, None, seconds=10, timer=lambda: next(ticks)) == 2 * 16 * MIB / 2


def test_bandwidth_is_unknown_where_its_block_would_do_harm(tmp_path: Path) -> None:
    assert measure_bandwidth(recorded(tmp_path, LAPTOP), 63 * MIB) is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rates.json"


class Times:
    """A measurement that counts how often it was asked, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.asked = 0

    def clock(self) -> float:
        return self.now

    def measure(self) -> float:
        self.asked += 1
        return 10.0 * self.asked


def test_rate_is_measured_once_a_day(path: Path) -> None:
    times = Times()

    def rate() -> tuple[float, float]:
        kept = RateCache(path, clock=times.clock).rate("matmul", "here", times.measure)
        assert kept is not None
        return kept.per_second, kept.age_seconds

    assert rate() == (10.0, 0.0)
    times.now += 24 * 3600 - 1
    assert rate() == (10.0, 24 * 3600 - 1)
    times.now += 1
    assert rate() == (20.0, 0.0)
    assert times.asked == 2


def test_time_to_live_can_be_another(path: Path) -> None:
    times = Times()
    cache = RateCache(path, ttl_seconds=60, clock=times.clock)
    cache.rate("matmul", "here", times.measure)
    times.now += 60
    assert cache.recall("matmul", "here") is None


@pytest.mark.parametrize("circumstances", ["another model", ""])
def test_rate_of_other_circumstances_is_measured_anew(path: Path, circumstances: str) -> None:
    times = Times()
    cache = RateCache(path, clock=times.clock)
    cache.rate("matmul", "this model", times.measure)
    kept = cache.rate("matmul", circumstances, times.measure)
    assert kept is not None
    assert kept.per_second == 20.0
    assert cache.recall("matmul", "this model") is None  # one is kept of each name


def test_rate_from_the_future_is_not_believed(path: Path) -> None:
    times = Times()
    cache = RateCache(path, clock=times.clock)
    cache.keep("matmul", "here", 5.0)
    times.now -= 1
    assert cache.recall("matmul", "here") is None


def test_fresh_measurement_replaces_what_was_kept_and_leaves_downloads(path: Path) -> None:
    times = Times()
    usual = RateCache(path, clock=times.clock)
    usual.keep("matmul", "here", 5.0)
    keep_download_rate(usual, "wifi", 7.0)
    fresh = RateCache(path, fresh=True, clock=times.clock)
    measured = fresh.rate("matmul", "here", times.measure)
    assert measured is not None
    assert measured.per_second == 10.0
    assert usual.recall("matmul", "here") == measured
    assert download_rate(fresh, "wifi") == 7.0


def test_unknown_rate_is_not_kept(path: Path) -> None:
    cache = RateCache(path)
    assert cache.rate("matmul", "here", lambda: None) is None
    assert not path.exists()


def test_rates_of_a_torn_file_are_measured_anew(path: Path) -> None:
    cache = RateCache(path, clock=lambda: NOW)
    cache.keep("matmul", "here", 5.0)
    path.write_bytes(path.read_bytes()[:-3])
    assert cache.recall("matmul", "here") is None
    cache.keep("disk_write", "here", 6.0)
    assert cache.recall("disk_write", "here") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"schema_version": True},
        {"rates": {"matmul": {"circumstances": "here", "per_second": 0, "taken_at": NOW}}},
        {"rates": {"matmul": {"circumstances": "here", "per_second": 1, "taken_at": NOW, "more": 1}}},
        {"rates": []},
    ],
    ids=["later version", "no version", "no rate", "another field", "no rates"],
)
def test_file_of_somebody_else_is_no_cache(path: Path, change: dict[str, object]) -> None:
    cache = RateCache(path, clock=lambda: NOW)
    cache.keep("matmul", "here", 5.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert cache.recall("matmul", "here") is None


def test_file_that_cannot_be_written_costs_only_the_time_of_measuring(tmp_path: Path) -> None:
    times = Times()
    cache = RateCache(tmp_path / "absent" / "rates.json", clock=times.clock)
    for expected in (10.0, 20.0):
        kept = cache.rate("matmul", "here", times.measure)
        assert kept is not None
        assert kept.per_second == expected


def test_download_rate_holds_on_the_network_that_it_was_of(path: Path) -> None:
    cache = RateCache(path, clock=lambda: NOW)
    keep_download_rate(cache, "wifi", 3e6)
    assert download_rate(cache, "wifi") == 3e6
    assert download_rate(cache, "cellular") is None
    assert download_rate(cache, None) is None
