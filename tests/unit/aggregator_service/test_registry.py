"""Aliases and notes of adapter versions: who moved what, from where, and why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from fake_clock import FakeClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_operator import Operator
from service_server import problem
from service_verbs import started_run
from sqlalchemy import delete, select
from test_operator_keys import with_key

from aggregator_service.operators.operators import Operator as Caller
from aggregator_service.registry.aliases import MAX_ALIASES, remove_alias, set_alias
from aggregator_service.service import Service
from aggregator_service.storage.registry_tables import AliasChangeRow, AliasRow
from hetlora.errors import NotFound
from hetlora.messages.operators import OperatorRole
from hetlora.messages.registry import AliasRemoval, AliasSet

ALICE = Caller("key-1", "alice", OperatorRole.OPERATOR, "")
ALIASES = "/populations/keyboard/aliases"
CHAMPION = f"{ALIASES}/champion"


@pytest.fixture
def versions(operator: Operator, bundle: str) -> list[str]:
    """Adapter versions of four runs: each began with one."""
    runs = [operator.run(bundle) for _ in range(4)]
    return [operator.call("GET", f"/runs/{run_id}")["adapter_version"] for run_id in runs]


def moved(operator: Operator, version: str, reason: str = "better", path: str = CHAMPION) -> Any:
    return operator.call("POST", f"{path}:set", json={"version": version, "reason": reason})


def test_alias_points_where_it_was_set_last_and_remembers_the_rest(
    operator: Operator, versions: list[str], clock: FakeClock
) -> None:
    alice = with_key(operator, OperatorRole.OPERATOR)
    first = moved(operator, versions[0], "the first")
    clock.advance(60)
    moved(alice, versions[1], "0.4 less loss")
    assert operator.call("GET", CHAMPION) == {
        "population": "keyboard",
        "alias": "champion",
        "version": versions[1],
        "reason": "0.4 less loss",
        "key_id": alice.token.split("_")[1],
        "key_name": "alice",
        "at": "2026-11-20T12:01:00Z",
    }
    history = operator.items(f"{CHAMPION}/history")
    assert [(own["old"], own["new"], own["key_name"], own["reason"]) for own in history] == [
        (versions[0], versions[1], "alice", "0.4 less loss"),
        (None, versions[0], "bootstrap", "the first"),
    ]
    assert history[1] == first
    moved(operator, versions[2], path=f"{ALIASES}/candidate")
    assert [(own["alias"], own["version"]) for own in operator.items(ALIASES)] == [
        ("candidate", versions[2]),
        ("champion", versions[1]),
    ]
    assert operator.call("GET", f"/adapters/{versions[1]}")["aliases"] == ["champion"]
    assert operator.call("GET", f"/adapters/{versions[0]}")["aliases"] == []


def test_removed_alias_is_gone_and_its_history_is_not(operator: Operator, versions: list[str]) -> None:
    moved(operator, versions[0])
    removed = operator.call("POST", f"{CHAMPION}:remove", json={"reason": "no good"})
    assert (removed["old"], removed["new"], removed["reason"]) == (versions[0], None, "no good")
    assert operator.items(ALIASES) == []
    for method, path in (("GET", CHAMPION), ("POST", f"{CHAMPION}:remove")):
        assert problem(operator.send(method, path, json={"reason": "again"})) == (404, "not_found")
    moved(operator, versions[0], "good after all")
    history = operator.items(f"{CHAMPION}/history")
    assert [own["new"] for own in history] == [versions[0], None, versions[0]]
    assert history[0]["old"] is None


def test_version_of_another_population_is_refused(
    operator: Operator, bundle: str, versions: list[str]
) -> None:
    operator.population("camera")
    run_id = operator.run(bundle, population="camera")
    other = operator.call("GET", f"/runs/{run_id}")["adapter_version"]
    moved(operator, versions[0])
    answer = operator.send("POST", f"{CHAMPION}:set", json={"version": other, "reason": "by mistake"})
    assert problem(answer) == (409, "state_conflict")
    assert (answer.json()["got"], answer.json()["expected"]) == (
        f"{other} of camera",
        "a version of keyboard",
    )
    assert operator.call("GET", CHAMPION)["version"] == versions[0]
    assert len(operator.items(f"{CHAMPION}/history")) == 1


@pytest.mark.parametrize(
    ("path", "message", "expected"),
    [
        (CHAMPION, {"version": "nothing", "reason": "x"}, (404, "not_found")),
        ("/populations/nowhere/aliases/champion", {"version": "nothing", "reason": "x"}, (404, "not_found")),
        (CHAMPION, {"version": "nothing"}, (422, "malformed_message")),
        (CHAMPION, {"version": "nothing", "reason": ""}, (422, "malformed_message")),
        (CHAMPION, {"version": "nothing", "reason": "x" * 1001}, (422, "malformed_message")),
        (f"{ALIASES}/Champion", {"version": "nothing", "reason": "x"}, (422, "malformed_message")),
    ],
)
def test_alias_of_nothing_or_for_no_reason_is_refused(
    operator: Operator, path: str, message: dict[str, str], expected: tuple[int, str]
) -> None:
    assert problem(operator.send("POST", f"{path}:set", json=message)) == expected
    assert operator.items(ALIASES) == []


def test_aliases_of_no_population_are_not_found(operator: Operator) -> None:
    for path in ("", "/champion", "/champion/history"):
        answer = operator.send("GET", f"/populations/nowhere/aliases{path}")
        assert problem(answer) == (404, "not_found")


def test_writes_at_the_same_time_follow_one_another(operator: Operator, versions: list[str]) -> None:
    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(lambda version: moved(operator, version), versions * 2))
    history = operator.items(f"{CHAMPION}/history")[::-1]
    assert len(history) == 8
    assert sorted(own["new"] for own in history) == sorted(versions * 2)
    assert [own["old"] for own in history] == [None, *(own["new"] for own in history[:-1])]
    assert operator.call("GET", CHAMPION)["version"] == history[-1]["new"]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([None, 0, 1])), max_size=8))
def test_history_tells_where_every_alias_points(
    service: Service, bundle: str, writes: list[tuple[str, int | None]]
) -> None:
    with service.database.write() as session:
        session.execute(delete(AliasRow))
        session.execute(delete(AliasChangeRow))
    versions = [f"{started_run(service, bundle)}-v000000" for _ in range(2)]
    for alias, number in writes:
        if number is not None:
            message = AliasSet(version=versions[number], reason="better")
            set_alias(service, "keyboard", alias, message, ALICE)
        else:
            with suppress(NotFound):  # where there is none, nothing is noted
                remove_alias(service, "keyboard", alias, AliasRemoval(reason="worse"), ALICE)
    told: dict[str, str | None] = {}
    with service.database.read() as session:
        for change in session.scalars(select(AliasChangeRow).order_by(AliasChangeRow.id)):
            assert change.old == told.get(change.alias)
            told[change.alias] = change.new
        points = {row.alias: row.version for row in session.scalars(select(AliasRow))}
    assert points == {alias: version for alias, version in told.items() if version is not None}
    last = {alias: None if number is None else versions[number] for alias, number in writes}
    assert points == {alias: version for alias, version in last.items() if version is not None}


def test_repeated_request_does_not_move_the_alias_back(operator: Operator, versions: list[str]) -> None:
    again = {"json": {"version": versions[0], "reason": "better"}, "headers": {"Idempotency-Key": "one"}}
    first = operator.call("POST", f"{CHAMPION}:set", **again)
    moved(operator, versions[1])
    assert operator.call("POST", f"{CHAMPION}:set", **again) == first
    assert operator.call("GET", CHAMPION)["version"] == versions[1]
    answer = operator.send("POST", f"{ALIASES}/candidate:set", **again)
    assert problem(answer) == (422, "idempotency_key_reused")


def test_population_has_only_so_many_aliases(operator: Operator, versions: list[str]) -> None:
    for number in range(MAX_ALIASES):
        moved(operator, versions[0], path=f"{ALIASES}/alias-{number}")
    message = {"version": versions[0], "reason": "one more"}
    assert problem(operator.send("POST", f"{CHAMPION}:set", json=message)) == (409, "state_conflict")
    moved(operator, versions[1], path=f"{ALIASES}/alias-0")  # one that is there can still be moved


def test_every_write_is_in_the_audit_log(operator: Operator, versions: list[str]) -> None:
    moved(operator, versions[0])
    operator.call("POST", f"/adapters/{versions[0]}/notes", json={"text": "fine"})
    operator.call("POST", f"{CHAMPION}:remove", json={"reason": "no good"})
    entries = operator.call("GET", "/audit?limit=3")["items"]
    assert [(own["action"].rpartition("/")[2], own["subject"], own["status"]) for own in entries] == [
        ("{alias}:remove", "keyboard:champion", 200),
        ("notes", versions[0], 201),
        ("{alias}:set", "keyboard:champion", 200),
    ]


def test_notes_stay_in_the_order_they_were_written(
    operator: Operator, versions: list[str], clock: FakeClock
) -> None:
    alice = with_key(operator, OperatorRole.OPERATOR)
    path = f"/adapters/{versions[0]}/notes"
    twice = {"json": {"text": "worse on rare words"}, "headers": {"Idempotency-Key": "one"}}
    first = operator.call("POST", path, **twice)
    assert operator.call("POST", path, **twice) == first
    clock.advance(1)
    alice.call("POST", path, json={"text": "not on mine"})
    notes = operator.items(path)
    assert notes[0] == first
    assert [(own["text"], own["key_name"], own["at"]) for own in notes] == [
        ("worse on rare words", "bootstrap", "2026-11-20T12:00:00Z"),
        ("not on mine", "alice", "2026-11-20T12:00:01Z"),
    ]
    assert operator.call("GET", f"/adapters/{versions[0]}")["notes"] == 2
    assert operator.items(f"/adapters/{versions[1]}/notes") == []


def test_note_on_nothing_or_of_nothing_is_refused(operator: Operator, versions: list[str]) -> None:
    written = {"json": {"text": "fine"}}
    assert problem(operator.send("POST", "/adapters/nothing/notes", **written)) == (404, "not_found")
    assert problem(operator.send("GET", "/adapters/nothing/notes")) == (404, "not_found")
    for text in ("", "x" * 2001):
        answer = operator.send("POST", f"/adapters/{versions[0]}/notes", json={"text": text})
        assert problem(answer) == (422, "malformed_message")
