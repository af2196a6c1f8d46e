"""The audit log: one entry for each write that an operator asked for, whatever came of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from fastapi import FastAPI
from service_operator import TOKEN, Operator
from service_server import problem
from sqlalchemy import text

from aggregator_service.api.operator_route import operator_router
from aggregator_service.operators.audit import drop_old_entries
from aggregator_service.service import Service
from aggregator_service.worker.sweep import sweep
from hetlora.digest import sha256_of

DAY_SECONDS = 24 * 3600


def entries(operator: Operator, query: str = "") -> list[tuple[str, str, int | None]]:
    """Action, subject and status, newest first."""
    return [
        (entry["action"].removeprefix("POST /management/v1"), entry["subject"], entry["status"])
        for entry in operator.items(f"/audit{query}")
    ]


def before(operator: Operator) -> int:
    """How many entries there are: the copied stage has some of its own."""
    return len(entries(operator, "?limit=500"))


def newer(operator: Operator, count: int) -> list[tuple[str, str, int | None]]:
    found = entries(operator, "?limit=500")
    return found[: len(found) - count][::-1]


def test_every_write_leaves_one_entry_that_names_what_it_was_about(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    count = before(operator)
    operator.population("camera")
    run_id = operator.run(bundle)
    operator.call("POST", f"/devices/{device.device_id}:decide", json={"state": "suspended"})
    key = operator.call("POST", "/keys", json={"name": "alice", "role": "viewer"})["key"]
    operator.call("POST", f"/keys/{key['key_id']}:revoke")
    operator.call("POST", "/bundles", json={"digest": bundle})
    data = operator.put(b"an object")
    assert newer(operator, count) == [
        ("/populations", "camera", 201),
        ("/runs", run_id, 201),
        ("/runs/{run_id}:{verb}", f"{run_id}:start", 200),
        ("/devices/{device_id}:decide", device.device_id, 200),
        ("/keys", key["key_id"], 201),
        ("/keys/{key_id}:revoke", key["key_id"], 200),
        ("/bundles", bundle, 201),
        ("PUT /management/v1/objects/{sha256}", data, 204),
    ]


def test_entry_tells_who_when_and_from_where(operator: Operator, clock: FakeClock) -> None:
    created = operator.call("POST", "/keys", json={"name": "alice", "role": "admin"})
    clock.advance(1)
    alice = Operator(operator.http, created["token"])
    headers = {"X-Request-Id": "ticket-17"}
    alice.call("POST", "/populations", json={"name": "camera"}, headers=headers)
    newest, first = operator.items("/audit?limit=500")[:2]
    assert {name: newest[name] for name in ("at", "key_id", "key_name", "request_id", "source")} == {
        "at": "2026-11-20T12:00:01Z",
        "key_id": created["key"]["key_id"],
        "key_name": "alice",
        "request_id": "ticket-17",
        "source": "127.0.0.1",
    }
    assert (first["key_id"], first["key_name"]) == ("bootstrap", "bootstrap")
    assert len(first["request_id"]) == 32


def test_refused_writes_leave_their_entries(operator: Operator) -> None:
    viewer = Operator(
        operator.http, operator.call("POST", "/keys", json={"name": "eve", "role": "viewer"})["token"]
    )
    count = before(operator)
    assert viewer.send("POST", "/populations", json={"name": "eves"}).status_code == 403
    assert operator.send("POST", "/populations", json={"name": "keyboard"}).status_code == 409
    assert operator.send("POST", "/populations", content=b"{").status_code == 422
    assert operator.send("POST", "/populations", content=b" " * 100_000).status_code == 413
    assert operator.send("POST", "/runs/none:start").status_code == 404
    assert operator.send("POST", "/runs/none:dance").status_code == 422
    assert operator.send("PUT", f"/objects/{'0' * 64}", content=b"other").status_code == 422
    assert newer(operator, count) == [
        ("/populations", "", 403),
        ("/populations", "keyboard", 409),
        ("/populations", "", 422),
        ("/populations", "", 413),
        ("/runs/{run_id}:{verb}", "none:start", 404),
        ("/runs/{run_id}:{verb}", "none:dance", 422),
        ("PUT /management/v1/objects/{sha256}", "0" * 64, 422),
    ]


def test_fault_of_the_service_is_noted_as_such(operator: Operator, app: FastAPI) -> None:
    router = operator_router()

    @router.post("/faulty")
    def faulty() -> None:
        raise RuntimeError("a fault of the inside")

    app.router.routes[:0] = router.routes
    count = before(operator)
    assert problem(operator.send("POST", "/faulty")) == (500, "service_failed")
    assert newer(operator, count) == [("/faulty", "", 500)]


def test_entry_is_there_before_anything_is_done(operator: Operator) -> None:
    count = before(operator)
    sha256 = sha256_of(b"an object")

    def body() -> Iterator[bytes]:
        yield b"an "
        cut_off = {"subject": sha256, "status": None}
        operator.wait_for("/audit?limit=1", lambda page: cut_off.items() <= page["items"][0].items())
        yield b"object"

    operator.call("PUT", f"/objects/{sha256}", content=body())
    assert newer(operator, count) == [("PUT /management/v1/objects/{sha256}", sha256, 204)]


def test_nothing_is_done_that_cannot_be_written_down(operator: Operator, service: Service) -> None:
    with service.database.write() as session:
        session.execute(text("ALTER TABLE audit RENAME TO elsewhere"))
    assert operator.send("POST", "/populations", json={"name": "camera"}).status_code in (500, 503)
    assert [item["name"] for item in operator.items("/populations")] == ["keyboard"]


def test_reads_and_strangers_leave_no_entry(operator: Operator, http: httpx.Client) -> None:
    count = before(operator)
    operator.items("/runs")
    operator.send("HEAD", f"/objects/{'0' * 64}")
    http.post("/management/v1/populations", json={"name": "camera"})
    Operator(http, "another-token-altogether").send("POST", "/populations", json={"name": "camera"})
    operator.send("DELETE", "/runs")
    assert before(operator) == count


def test_log_holds_neither_bodies_nor_secrets(operator: Operator, service: Service) -> None:
    token = operator.population("camera")
    headers = {"Idempotency-Key": "a-key-of-mine"}
    created = operator.call("POST", "/keys", json={"name": "alice", "role": "admin"}, headers=headers)
    told = str(operator.items("/audit?limit=500"))
    assert "camera" in told
    for secret in (token, created["token"], TOKEN, sha256_of(TOKEN.encode()), "a-key-of-mine", "admin"):
        assert secret not in told


def test_hostile_path_is_kept_short_and_printable(operator: Operator) -> None:
    operator.send("POST", "/runs/%1b[2J%00%0a" + "x" * 1000 + ":start")
    newest = operator.items("/audit?limit=500")[0]
    assert newest["subject"] == (" [2J  " + "x" * 1000)[:256]


def test_log_is_listed_by_key_subject_and_time_in_pages(operator: Operator, clock: FakeClock) -> None:
    created = operator.call("POST", "/keys", json={"name": "alice", "role": "admin"})
    alice = Operator(operator.http, created["token"])
    clock.advance(60)
    for name in ("a", "b", "c"):
        alice.population(name)
    key_id = created["key"]["key_id"]
    assert [entry[1] for entry in entries(operator, f"?key_id={key_id}")] == ["c", "b", "a"]
    assert [entry[1] for entry in entries(operator, "?subject=b")] == ["b"]
    assert [entry[1] for entry in entries(operator, "?since=2026-11-20T12:01:00Z")] == ["c", "b", "a"]
    assert ("/keys", key_id, 201) in entries(operator, "?until=2026-11-20T12:01:00Z&limit=500")
    first = operator.call("GET", f"/audit?key_id={key_id}&limit=2")
    rest = operator.call("GET", f"/audit?key_id={key_id}&limit=2&cursor={first['next_cursor']}")
    assert [item["subject"] for page in (first, rest) for item in page["items"]] == ["c", "b", "a"]


def test_time_without_a_zone_is_refused(operator: Operator) -> None:
    answer = operator.send("GET", "/audit?since=2026-11-20T12:01:00")
    assert problem(answer) == (422, "malformed_message")


def keeping(service: Service, days: int | None) -> Service:
    return replace(service, settings=service.settings.model_copy(update={"keep_audit_days": days}))


def test_entries_go_by_whole_days_and_one_says_how_many(
    operator: Operator, service: Service, clock: FakeClock
) -> None:
    there = before(operator)  # of 20 November, noon
    clock.advance(DAY_SECONDS)
    operator.population("camera")
    clock.advance(2.5 * DAY_SECONDS - 1)  # 23 November, 23:59:59: two days before are within the 21st
    sweep(keeping(service, 2))
    assert entries(operator, "?limit=500") == [
        ("remove old entries", f"{there} from before 2026-11-21", 200),
        ("/populations", "camera", 201),
    ]
    clock.advance(1)
    sweep(keeping(service, 2))
    assert entries(operator) == [
        ("remove old entries", "1 from before 2026-11-22", 200),
        ("remove old entries", f"{there} from before 2026-11-21", 200),
    ]
    (newest, _) = operator.items("/audit")
    assert (newest["key_id"], newest["at"]) == ("service", "2026-11-24T00:00:00Z")


def test_sweep_that_removes_nothing_writes_nothing(
    operator: Operator, service: Service, clock: FakeClock
) -> None:
    kept = entries(operator, "?limit=500")
    sweep(keeping(service, 1))
    clock.advance(1.5 * DAY_SECONDS - 1)
    sweep(keeping(service, 1))
    assert entries(operator, "?limit=500") == kept


def test_log_is_kept_for_ever_unless_the_settings_say_otherwise(
    operator: Operator, service: Service, clock: FakeClock
) -> None:
    assert service.settings.keep_audit_days is None
    kept = entries(operator, "?limit=500")
    clock.advance(36_500 * DAY_SECONDS)
    sweep(service)
    assert entries(operator, "?limit=500") == kept


def test_workers_that_sweep_at_once_leave_one_entry(
    operator: Operator, service: Service, clock: FakeClock
) -> None:
    there = before(operator)
    clock.advance(3 * DAY_SECONDS)
    start = threading.Barrier(4)

    def worker() -> None:
        start.wait()
        drop_old_entries(keeping(service, 1), clock())

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(worker) for _ in range(4)]:
            done.result()
    assert entries(operator) == [("remove old entries", f"{there} from before 2026-11-22", 200)]


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_moment_that_no_year_in_utc_has_is_refused(operator: Operator, name: str, moment: str) -> None:
    answer = operator.send("GET", "/audit", params={name: moment})
    assert problem(answer) == (422, "malformed_message")


def test_first_and_last_moments_in_utc_are_taken(operator: Operator) -> None:
    bounds = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"}
    operator.call("POST", "/keys", json={"name": "alice", "role": "viewer"})
    assert operator.call("GET", "/audit", params=bounds)["items"][0]["action"].endswith("/keys")
