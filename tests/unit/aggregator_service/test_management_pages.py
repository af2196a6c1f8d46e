"""Listings page by page."""

from __future__ import annotations

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_server import problem, served

from aggregator_service.app import create_app
from aggregator_service.service import open_service
from aggregator_service.settings import Settings


def test_pages_follow_the_cursor_to_the_end(operator: Operator, bundle: str) -> None:
    run_ids = sorted(operator.run(bundle, start=False) for _ in range(5))
    found, path = [], "/runs?limit=2"
    while path:
        page = operator.call("GET", path)
        found.append([item["run_id"] for item in page["items"]])
        path = f"/runs?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert found == [run_ids[:2], run_ids[2:4], run_ids[4:]]


def test_adapters_page_newest_first(operator: Operator, device: FakeDevice, bundle: str) -> None:
    run_id = operator.run(bundle, rounds=2)
    for rounds in (1, 2):
        device.deliver(make_adapter(2))
        operator.committed(run_id, rounds)
    first = operator.call("GET", f"/runs/{run_id}/adapters?limit=2")
    rest = operator.call("GET", f"/runs/{run_id}/adapters?limit=2&cursor={first['next_cursor']}")
    indices = [item["round_index"] for page in (first, rest) for item in page["items"]]
    assert indices == [1, 0, -1]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=" + "x" * 129])
def test_page_out_of_bounds_is_refused(operator: Operator, query: str) -> None:
    assert problem(operator.send("GET", f"/runs?{query}")) == (422, "malformed_message")


@pytest.mark.parametrize("round_index", ["-1", str(2**53), str(2**63), "9" * 5000])
def test_round_index_that_no_database_can_hold_is_refused(
    operator: Operator, bundle: str, round_index: str
) -> None:
    run_id = operator.run(bundle)
    answer = operator.send("GET", f"/runs/{run_id}/assignments?round_index={round_index}")
    assert problem(answer) == (422, "malformed_message")


def test_transitions_page_in_the_order_of_their_time(
    settings: Settings, clock: FakeClock, bundle: str
) -> None:
    with served(create_app(open_service(settings, clock)), settings) as http:
        operator = Operator(http)
        run_id = operator.run(bundle)
        clock.advance(1)
        operator.call("POST", f"/runs/{run_id}:stop")
        first = operator.call("GET", f"/transitions?subject=run&subject_id={run_id}&limit=2")
        rest = operator.call(
            "GET", f"/transitions?subject=run&subject_id={run_id}&limit=2&cursor={first['next_cursor']}"
        )
    listed = [(item["old"], item["new"], item["at"]) for page in (first, rest) for item in page["items"]]
    assert listed == [
        (None, "draft", "2026-11-20T12:00:00Z"),
        ("draft", "running", "2026-11-20T12:00:00Z"),
        ("running", "stopped", "2026-11-20T12:00:01Z"),
    ]
