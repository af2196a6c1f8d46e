"""A fleet that is not there: what comes of it can be reckoned by hand, and comes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.service import Service
from benchmarks.service.tiny_bundle import tiny_spec, write_tiny_bundle
from benchmarks.simulation.fleet_file import Availability, FleetFile, Spread, read_fleet_file
from benchmarks.simulation.learning import Learning
from benchmarks.simulation.outcome import Outcome
from benchmarks.simulation.sessions import DAY, HOUR, sessions
from benchmarks.simulation.simulation import simulate
from benchmarks.simulation.updates import Made, Updates
from benchmarks.simulation.virtual_clock import VirtualClock
from hetlora.errors import SettingsError, TrainingDiverged
from hetlora.messages.device import Plan

BOARD: dict[str, Any] = {
    "name": "board",
    "count": 40,
    "cores": 4,
    "memory_available_mb": 1000,
    "gigaflops_per_core": {"median": 10, "spread": 1.5},
    "download_mbit_per_second": {"median": 30, "spread": 2},
    "upload_mbit_per_second": {"median": 8, "spread": 2},
    "dropout": 0,
}
# Rank 1 is 4 layers x 2 factors x 1000 numbers x 4 bytes = 32,000 bytes down, and as many up.
FEATURES = 1000
Simulate = Callable[..., Outcome]


@pytest.fixture
def campaign(tmp_path: Path) -> Simulate:
    bundle = write_tiny_bundle(tmp_path / "bundle", tiny_spec(FEATURES, 16))
    numbers = iter(range(99))

    def run(*kinds: dict[str, Any], settings: dict[str, Any] | None = None, **fleet: Any) -> Outcome:
        asked = {"rounds": 3, "goal_count": 5, "max_rank": 16, **(settings or {})}
        values = {"bundle": "", "run": asked, "devices": [{**BOARD, **kind} for kind in kinds], **fleet}
        return simulate(
            FleetFile.model_validate(values), Learning(bundle), tmp_path / f"{next(numbers)}", lambda *_: None
        )

    return run


def test_same_fleet_comes_to_the_same_end(campaign: Simulate) -> None:
    kinds = ({"dropout": 0.2}, {"name": "phone", "traffic_mb_per_round": 0.4})

    first, again, other = campaign(*kinds), campaign(*kinds), campaign(*kinds, seed=1)

    assert first == again
    assert first != other
    assert first.state == "completed"
    assert first.rounds_committed == 3


def test_ranks_are_those_that_devices_can_afford(campaign: Simulate) -> None:
    """0.4 MB a round both ways allow rank 6, of which the ladder of ranks has 4; nothing else is scarce."""
    outcome = campaign({}, {"name": "phone", "traffic_mb_per_round": 0.4})

    board, phone = outcome.kinds
    assert set(board.ranks) == {16}
    assert set(phone.ranks) == {4}
    assert board.updates + phone.updates == 3 * 5
    assert [own.accepted for own in outcome.rounds if own.state == "committed"] == [5, 5, 5]
    least = sum(32_000 * rank * count for own in outcome.rounds for rank, count in own.ranks.items())
    assert least <= outcome.uploaded_bytes <= 1.05 * least  # beside the numbers there are their names


def test_devices_that_are_too_small_are_told_of_and_left_out(campaign: Simulate) -> None:
    """A process alone takes more than 20 MB."""
    outcome = campaign({}, {"name": "sensor", "memory_available_mb": 20})

    board, sensor = outcome.kinds
    assert board.updates == 15
    assert (sensor.trained, sensor.updates, set(sensor.outcomes)) == (0, 0, {"device_too_small"})


def test_campaign_in_which_all_drop_out_commits_nothing_until_its_time_is_over(campaign: Simulate) -> None:
    outcome = campaign({"dropout": 1}, days=1, tick_seconds=600)

    assert outcome.state == "running"
    assert outcome.rounds_committed == 0
    assert set(outcome.kinds[0].outcomes) <= {"dropped out", "lease ran out", "state_conflict"}
    assert outcome.uploaded_bytes == 0


def test_download_counts_whatever_becomes_of_the_work(campaign: Simulate) -> None:
    """All drop out as they train, when the bundle and the adapter have arrived."""
    outcome = campaign({"dropout": 1}, days=1, tick_seconds=600)

    assert sum(own.downloaded_bytes for own in outcome.rounds) == 0, "of accepted updates"
    least = 32_000 * 16 * outcome.kinds[0].outcomes["dropped out"]
    assert outcome.downloaded_bytes >= least


def test_training_that_diverges_is_given_back_and_the_campaign_goes_on(tmp_path: Path) -> None:
    @dataclass(frozen=True, slots=True)
    class Diverging(Learning):
        @contextmanager
        def updates(self, service: Service, fleet: FleetFile) -> Iterator[Updates]:
            with super(Diverging, self).updates(service, fleet) as made:
                yield _DivergingOnEveryFourth(made)

    values = {"bundle": "", "run": {"rounds": 3, "goal_count": 5, "max_rank": 16}, "devices": [BOARD]}
    bundle = write_tiny_bundle(tmp_path / "bundle", tiny_spec(FEATURES, 16))
    fleet = FleetFile.model_validate({**values, "availability": {"share": 0.4}})

    outcome = simulate(fleet, Diverging(bundle), tmp_path / "service", lambda *_: None)

    assert outcome.rounds_committed == 3
    assert outcome.kinds[0].outcomes["training_diverged"] >= 1


class _DivergingOnEveryFourth:
    def __init__(self, made: Updates) -> None:
        self.begin, self.drop, self._result = made.begin, made.drop, made.result

    def result(self, device: int, plan: Plan) -> Made:
        if device % 4 == 0:
            raise TrainingDiverged("the loss is no number", got="nan")
        return self._result(device, plan)


def test_training_goes_on_in_the_next_session(campaign: Simulate) -> None:
    """At 1 Mbit/s rank 16 takes 8 s both ways; no session lasts more than one second of these."""
    short = {"median": 1 / 60, "spread": 1}
    slow = {"download_mbit_per_second": 1, "upload_mbit_per_second": 1}

    outcome = campaign(slow, availability={"session_minutes": short}, tick_seconds=60)

    assert outcome.state == "completed"


@pytest.mark.parametrize("peak_over_trough", [1, 4])
def test_sessions_come_as_often_as_was_asked_and_more_at_the_peak(peak_over_trough: float) -> None:
    asked = Availability(
        share=0.2,
        session_minutes=Spread(median=30, spread=1.5),
        peak_hour=2,
        peak_over_trough=peak_over_trough,
        time_zones_hours=0,
        spread_between_devices=1,
    )
    days = 50
    there = {hour: 0 for hour in range(24)}
    for device in range(100):
        own = _within(asked, device, days * DAY)
        for hour in range(24 * days):  # looked at in the middle of each
            moment = (hour + 0.5) * HOUR
            there[hour % 24] += any(one.start <= moment < one.end for one in own)

    assert sum(there.values()) / (100 * days * 24) == pytest.approx(0.2, rel=0.05)
    # Half an hour behind the rate, as sessions last.
    peak, trough = there[1] + there[2] + there[3], there[13] + there[14] + there[15]
    assert peak / trough == pytest.approx(peak_over_trough, rel=0.1)


def _within(asked: Availability, device: int, seconds: float) -> list[Any]:
    found = []
    for session in sessions(asked, 0, device):
        if session.start >= seconds:
            return found
        found.append(session)
    return found


@given(st.integers(0, 10_000), st.floats(0.01, 0.45), st.floats(1, 50))
def test_sessions_of_a_device_do_not_overlap(seed: int, share: float, peak_over_trough: float) -> None:
    asked = Availability(share=share, peak_over_trough=peak_over_trough)

    own = list(islice(sessions(asked, seed, 7), 20))

    assert all(one.start < one.end for one in own)
    assert all(one.end < other.start for one, other in pairwise(own))
    assert own[0].end > 0


@given(st.lists(st.floats(0, 100)))
def test_events_come_in_the_order_of_their_times_and_of_one_time_as_they_were_asked_for(
    times: list[float],
) -> None:
    clock, seen = VirtualClock(), []
    for number, at in enumerate(times):
        clock.at(at, lambda at=at, number=number: seen.append((clock.seconds, at, number)))  # type: ignore[misc]

    while clock.step():
        pass

    assert [own[0] for own in seen] == sorted(times)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "run: Field required"),
        ("seed = 1 1", "is no TOML"),
        ('bundle = "b"\ncolour = 1', "colour"),
    ],
)
def test_fleet_file_that_is_none_is_refused_with_what_is_wrong(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=what):
        read_fleet_file(path)


def test_two_kinds_of_one_name_are_refused(tmp_path: Path) -> None:
    kind = "\n".join(
        f"{key} = {value!r}".replace("'median'", "median")
        for key, value in BOARD.items()
        if not isinstance(value, dict)
    )
    spread = "".join(f"\n{key} = 1" for key, value in BOARD.items() if isinstance(value, dict))
    path = tmp_path / "fleet.toml"
    run = "[run]\ngoal_count = 1\nmax_rank = 1\n"
    path.write_text(f'bundle = "b"\n{run}' + 2 * f"[[devices]]\n{kind}{spread}\n")

    with pytest.raises(SettingsError, match="one name"):
        read_fleet_file(path)
