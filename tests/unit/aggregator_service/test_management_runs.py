"""Runs as the operator makes and steers them, and things that are not there."""

from __future__ import annotations

import pytest
from service_operator import Operator
from service_server import problem


@pytest.mark.parametrize(
    ("chosen", "code"),
    [
        ({"max_rank": 3}, "settings_invalid"),
        ({"training": {"max_tokens": 65}}, "settings_invalid"),
        ({"min_rank": 2, "max_rank": 1}, "malformed_message"),
        ({"rule": "mean"}, "malformed_message"),
        ({"goal_count": 0}, "malformed_message"),
    ],
)
def test_run_that_the_bundle_cannot_serve_is_refused(
    operator: Operator, bundle: str, chosen: dict[str, object], code: str
) -> None:
    body = {
        "population": "keyboard",
        "bundle": bundle,
        "settings": {"goal_count": 1, "max_rank": 2, **chosen},
    }
    assert problem(operator.send("POST", "/runs", json=body)) == (422, code)


@pytest.mark.parametrize("changes", [{"population": "camera"}, {"bundle": "0" * 64}])
def test_run_of_unknown_population_or_bundle_is_refused(
    operator: Operator, bundle: str, changes: dict[str, str]
) -> None:
    body = {"population": "keyboard", "bundle": bundle, "settings": {"goal_count": 1, "max_rank": 2}}
    assert problem(operator.send("POST", "/runs", json=body | changes)) == (404, "not_found")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_draft_run_can_only_be_started_or_stopped(operator: Operator, bundle: str, verb: str) -> None:
    run_id = operator.run(bundle, start=False)
    assert problem(operator.send("POST", f"/runs/{run_id}:{verb}")) == (409, "state_conflict")
    assert operator.call("POST", f"/runs/{run_id}:stop")["state"] == "stopped"
    assert problem(operator.send("POST", f"/runs/{run_id}:start")) == (409, "state_conflict")


def test_paused_run_cannot_be_started_again(operator: Operator, bundle: str) -> None:
    run_id = operator.run(bundle)
    operator.call("POST", f"/runs/{run_id}:pause")
    assert problem(operator.send("POST", f"/runs/{run_id}:start")) == (409, "state_conflict")


@pytest.mark.parametrize("path", ["", "/rounds", "/assignments", "/adapters"])
def test_unknown_run_is_not_found(operator: Operator, path: str) -> None:
    assert problem(operator.send("GET", f"/runs/unknown{path}")) == (404, "not_found")


@pytest.mark.parametrize("part", ["assignments", "replaced-keys", "rollouts", "reputation"])
def test_what_an_unknown_device_has_is_not_found(operator: Operator, part: str) -> None:
    """An empty list would tell whoever mistyped an id that nothing ever happened to it."""
    assert problem(operator.send("GET", f"/devices/unknown/{part}")) == (404, "not_found")


def test_unknown_things_are_not_found(operator: Operator) -> None:
    assert problem(operator.send("POST", "/runs/unknown:start")) == (404, "not_found")
    assert problem(operator.send("GET", "/adapters/unknown/content")) == (404, "not_found")
    answer = operator.send("POST", "/devices/unknown:decide", json={"state": "suspended"})
    assert problem(answer) == (404, "not_found")
