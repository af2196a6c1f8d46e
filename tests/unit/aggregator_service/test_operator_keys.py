"""Keys of operators: what each role may do, and how long."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_operator import Operator
from service_server import problem
from service_tables import every_value

from aggregator_service.api.operator_route import OperatorRoute, role_for
from aggregator_service.app import ROUTERS
from aggregator_service.service import Service
from hetlora.messages.operators import OperatorRole

VIEWER, OPERATOR, ADMIN = OperatorRole
# Each route of operators with the role that it needs; whoever adds a route says here what it may cost.
ROLES = {
    "POST /populations": ADMIN,
    "POST /populations/{name}:rotate-token": ADMIN,
    "GET /populations": VIEWER,
    "POST /populations/{name}:set-privacy-budget": ADMIN,
    "GET /populations/{name}/privacy": VIEWER,
    "GET /devices": VIEWER,
    "POST /devices/{device_id}:decide": OPERATOR,
    "POST /devices:preauthorize": OPERATOR,
    "GET /devices/{device_id}/assignments": VIEWER,
    "GET /devices/{device_id}/replaced-keys": VIEWER,
    "GET /transitions": VIEWER,
    "PUT /objects/{sha256}": OPERATOR,
    "HEAD /objects/{sha256}": VIEWER,
    "POST /bundles": OPERATOR,
    "GET /bundles": VIEWER,
    "GET /bundles/{digest}/manifest": VIEWER,
    "POST /runs": OPERATOR,
    "GET /runs": VIEWER,
    "GET /runs/{run_id}": VIEWER,
    "GET /runs/{run_id}/rounds": VIEWER,
    "GET /runs/{run_id}/figures": VIEWER,
    "GET /runs/{run_id}/assignments": VIEWER,
    "GET /runs/{run_id}/adapters": VIEWER,
    "GET /adapters/{version}/content": VIEWER,
    "GET /adapters/{version}/frozen": VIEWER,
    "POST /runs/{run_id}:{verb}": OPERATOR,
    "GET /populations/{name}/aliases": VIEWER,
    "GET /populations/{name}/aliases/{alias}": VIEWER,
    "POST /populations/{name}/aliases/{alias}:set": OPERATOR,
    "POST /populations/{name}/aliases/{alias}:remove": OPERATOR,
    "GET /populations/{name}/aliases/{alias}/history": VIEWER,
    "GET /adapters/{version}": VIEWER,
    "POST /adapters/{version}/notes": OPERATOR,
    "GET /adapters/{version}/notes": VIEWER,
    "GET /adapters/{version}/manifest": VIEWER,
    "GET /signing-keys": VIEWER,
    "GET /quarantine": VIEWER,
    "GET /quarantine/{assignment_id}": VIEWER,
    "GET /quarantine/{assignment_id}/content": OPERATOR,
    "POST /quarantine/{assignment_id}:{verb}": OPERATOR,
    "GET /devices/{device_id}/reputation": VIEWER,
    "POST /populations/{name}:suspend-after": ADMIN,
    "POST /devices/{device_id}:label": OPERATOR,
    "GET /devices/{device_id}/rollouts": VIEWER,
    "POST /groups": OPERATOR,
    "GET /groups": VIEWER,
    "GET /groups/{group_id}": VIEWER,
    "POST /groups/{group_id}:delete": OPERATOR,
    "POST /rollouts": OPERATOR,
    "GET /rollouts": VIEWER,
    "GET /rollouts/{rollout_id}": VIEWER,
    "GET /rollouts/{rollout_id}/devices": VIEWER,
    "POST /rollouts/{rollout_id}:{verb}": OPERATOR,
    "POST /keys": ADMIN,
    "GET /keys": ADMIN,
    "POST /keys/{key_id}:revoke": ADMIN,
    "GET /audit": ADMIN,
    "GET /whoami": VIEWER,
}


def with_key(operator: Operator, role: OperatorRole, name: str = "alice") -> Operator:
    """Another operator, with a key of their own."""
    created = operator.call("POST", "/keys", json={"name": name, "role": role})
    return Operator(operator.http, created["token"])


def key_id_of(operator: Operator) -> str:
    return operator.token.split("_")[1]


def test_every_route_of_operators_asks_for_a_role() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, OperatorRoute)]
    found = {
        f"{method} {route.path.removeprefix('/management/v1')}": role_for(method, route.path)
        for route in routes
        for method in route.methods
    }
    assert found == ROLES


@pytest.mark.parametrize("role", OperatorRole)
def test_key_opens_the_doors_of_its_role_and_no_other(operator: Operator, role: OperatorRole) -> None:
    asking = with_key(operator, role)
    for route, needed in ROLES.items():
        method, template = route.split(" ")
        path = re.sub(r"\{sha256\}|\{digest\}", "0" * 64, template)
        path = re.sub(r"\{verb\}", "start", path)
        path = re.sub(r"\{\w+\}", "nothing-of-this-name", path)
        answer = asking.send(method, path)
        # With the role the request comes as far as its missing body or its missing object.
        refused = answer.status_code == 403
        assert refused == (not role.covers(needed)), f"{route}: {answer.text}"
        if refused and method != "HEAD":
            assert problem(answer) == (403, "not_permitted")
            assert (answer.json()["got"], answer.json()["expected"]) == (f"role {role}", f"role {needed}")


@pytest.mark.parametrize("role", OperatorRole)
def test_key_is_told_whose_it_is_and_what_it_may(operator: Operator, role: OperatorRole) -> None:
    asking = with_key(operator, role)

    told = asking.call("GET", "/whoami")

    assert told == {"key_id": key_id_of(asking), "name": "alice", "role": role}


def test_list_that_is_asked_for_newest_first_is_the_other_one_backwards(operator: Operator) -> None:
    operator.call("POST", "/populations", json={"name": "one"})
    for digit in "123":
        device = {"population": "one", "device_id": digit * 32}
        operator.call("POST", "/devices:preauthorize", json=device)
    oldest = operator.call("GET", "/transitions")["items"]
    assert len(oldest) == 3

    first = operator.call("GET", "/transitions?newest_first=true&limit=2")
    rest = operator.call("GET", f"/transitions?newest_first=true&cursor={first['next_cursor']}")

    assert [*first["items"], *rest["items"]] == oldest[::-1]


def test_roles_cover_those_before_them() -> None:
    covered = [[role.covers(needed) for needed in OperatorRole] for role in OperatorRole]
    assert covered == [[True, False, False], [True, True, False], [True, True, True]]


def test_secret_is_shown_once_and_kept_as_a_hash(operator: Operator, service: Service) -> None:
    created = operator.call("POST", "/keys", json={"name": "alice", "role": "viewer"})
    token, key = created["token"], created["key"]
    assert re.fullmatch(rf"hetlora_{key['key_id']}_[A-Za-z0-9_-]{{43}}", token)
    assert (key["name"], key["role"]) == ("alice", "viewer")
    assert (key["created_at"], key["last_used_at"], key["revoked_at"]) == ("2026-11-20T12:00:00Z", None, None)
    assert operator.items("/keys") == [key]
    assert token.rpartition(key["key_id"])[2].removeprefix("_") not in every_value(service)


def test_revoked_key_opens_nothing_at_once(operator: Operator, clock: FakeClock) -> None:
    alice = with_key(operator, VIEWER)
    alice.call("GET", "/runs")
    clock.advance(5)
    revoked = operator.call("POST", f"/keys/{key_id_of(alice)}:revoke")
    assert revoked["revoked_at"] == "2026-11-20T12:00:05Z"
    answer = alice.send("GET", "/runs")
    assert problem(answer) == (401, "authentication_failed")
    assert "revoked" in answer.json()["detail"]
    clock.advance(5)
    assert operator.call("POST", f"/keys/{key_id_of(alice)}:revoke") == revoked
    assert operator.items("/keys") == [revoked]


def test_admin_may_make_and_revoke_admins_and_the_first_token_stays(operator: Operator) -> None:
    alice = with_key(operator, ADMIN)
    bob = with_key(alice, ADMIN, "bob")
    bob.call("POST", f"/keys/{key_id_of(alice)}:revoke")
    bob.call("POST", f"/keys/{key_id_of(bob)}:revoke")
    assert problem(bob.send("GET", "/keys")) == (401, "authentication_failed")
    assert len(operator.items("/keys")) == 2


def test_unknown_key_cannot_be_revoked(operator: Operator) -> None:
    assert problem(operator.send("POST", "/keys/20261120120000-000000000000:revoke")) == (404, "not_found")
    assert problem(operator.send("POST", "/keys/bootstrap:revoke")) == (404, "not_found")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token + "A",
        lambda token: token[:-1],
        lambda token: token.upper(),
        lambda token: token.replace("hetlora_", "", 1),
        lambda token: re.sub("_[0-9]", "_9", token, count=1),
        lambda token: re.sub("_[^_]*_", f"_{'0' * 64}_", token, count=1),
        lambda token: token + "\x7f",
        lambda token: "hetlora__",
    ],
)
def test_token_that_is_nearly_right_is_refused(operator: Operator, spoil: Callable[[str], str]) -> None:
    alice = with_key(operator, ADMIN)
    alice.token = spoil(alice.token)
    assert problem(alice.send("GET", "/runs")) == (401, "authentication_failed")


def test_use_is_noted_to_the_hour(operator: Operator, clock: FakeClock) -> None:
    alice = with_key(operator, VIEWER)
    noted = []
    for seconds in (65 * 60, 30 * 60, 30 * 60):  # 13:05, 13:35, 14:05
        clock.advance(seconds)
        alice.call("GET", "/runs")
        noted.append(operator.items("/keys")[0]["last_used_at"])
    assert noted == ["2026-11-20T13:00:00Z", "2026-11-20T13:00:00Z", "2026-11-20T14:00:00Z"]


def test_refused_secret_is_no_use_of_the_key(operator: Operator) -> None:
    alice = with_key(operator, VIEWER)
    alice.token = alice.token[:-1] + ("A" if alice.token[-1] != "A" else "B")
    alice.send("GET", "/runs")
    assert operator.items("/keys")[0]["last_used_at"] is None


@pytest.mark.parametrize(
    "message",
    [
        {"name": "alice", "role": "root"},
        {"name": "Alice Smith", "role": "admin"},
        {"name": "alice"},
        {"name": "alice", "role": "admin", "secret": "mine"},
    ],
)
def test_key_of_no_such_role_or_name_is_refused(operator: Operator, message: dict[str, str]) -> None:
    assert problem(operator.send("POST", "/keys", json=message)) == (422, "malformed_message")


def test_key_of_an_operator_opens_no_door_of_devices(
    operator: Operator, device: FakeDevice, http: httpx.Client
) -> None:
    alice = with_key(operator, ADMIN)
    answer = http.post("/device/v1/check-ins", headers={"Authorization": f"Bearer {alice.token}"})
    assert problem(answer) == (401, "authentication_failed")
