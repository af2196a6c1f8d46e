from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
from contextlib import closing

import httpx
import pytest
from fake_device import FakeDevice
from fastapi import FastAPI
from service_operator import TOKEN, Operator
from service_server import problem

from aggregator_service.app import LoopFaults
from aggregator_service.service import Service
from hetlora.messages.common import Problem


def test_unknown_path_and_method_have_the_one_error_shape(http: httpx.Client) -> None:
    assert problem(http.get("/nowhere")) == (404, "not_found")
    answer = http.delete("/internal/v1/health")
    assert problem(answer) == (405, "not_found")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "body",
    [b"{", b'"text"', b"\xff", b"[" * 60_000, b"{}", b'{"name": NaN}', b""],
    ids=["cut off", "no object", "no UTF-8", "deep", "empty object", "NaN", "empty"],
)
def test_malformed_json_is_refused(operator: Operator, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = operator.send("POST", "/populations", content=body, headers=headers)
    assert problem(answer) == (422, "malformed_message")


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "identity, gzip"])
def test_body_that_is_compressed_is_refused_before_it_is_read(operator: Operator, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    answer = operator.send("POST", "/populations", content=gzip.compress(bytes(10**6)), headers=headers)
    assert problem(answer) == (415, "invalid_input")


def test_body_that_says_that_it_is_not_compressed_is_read(operator: Operator) -> None:
    headers = {"Content-Encoding": "identity"}
    answer = operator.send("POST", "/populations", json={"name": "camera"}, headers=headers)
    assert answer.is_success


def test_malformed_json_of_a_device_is_refused(device: FakeDevice) -> None:
    assert problem(device.send("POST", "/check-ins", content=b"{")) == (422, "malformed_message")


def test_path_with_a_slash_too_many_is_not_found(operator: Operator) -> None:
    assert problem(operator.send("GET", "/runs/")) == (404, "not_found")


def test_message_with_a_wrong_field_is_told_which(operator: Operator) -> None:
    answer = operator.send("POST", "/populations", json={"name": "Key Board"})
    assert problem(answer) == (422, "malformed_message")
    assert answer.json()["got"].startswith("body.name: String should match pattern")


def test_json_body_above_the_limit_is_refused(operator: Operator) -> None:
    limit = 64 * 1024
    body = json.dumps({"name": "x" * limit})
    answer = operator.send("POST", "/populations", content=body)
    assert problem(answer) == (413, "body_too_large")
    assert answer.json()["expected"] == f"up to {limit} bytes"


def test_oversized_body_of_a_stranger_is_not_read(http: httpx.Client) -> None:
    answer = http.post("/management/v1/populations", content=b"x" * 1_000_000)
    assert problem(answer) == (401, "authentication_failed")


def test_fault_of_the_service_tells_no_details(http: httpx.Client, app: FastAPI) -> None:
    @app.get("/faulty")
    def faulty() -> None:
        raise RuntimeError("a secret of the inside")

    app.router.routes.insert(0, app.router.routes.pop())
    answer = http.get("/faulty")
    assert problem(answer) == (500, "service_failed")
    assert "secret" not in answer.text


def test_locked_database_is_told_as_passing(http: httpx.Client, service: Service, operator: Operator) -> None:
    on_file = service.settings.database_url is None
    # The worker may be waiting for the file already, and the request for the worker.
    lock, told = (
        ("SELECT 1", {"database is locked", "a wait of 2 s"})
        if on_file
        else ("LOCK TABLE populations", {"canceling statement due to lock timeout"})
    )
    with service.database.engine.execution_options(begin="BEGIN IMMEDIATE").connect() as other:
        other.exec_driver_sql(lock)
        answer = operator.send("POST", "/populations", json={"name": "camera"})
        assert problem(answer) == (503, "unavailable")
        assert answer.json()["got"] in told
    operator.population("camera")


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, (503, "unavailable")),
        (errno.EFBIG, (503, "unavailable")),
        (errno.EMFILE, (503, "unavailable")),
        (errno.EISDIR, (500, "service_failed")),
    ],
)
def test_full_disk_is_told_as_passing(
    http: httpx.Client, app: FastAPI, number: int, told: tuple[int, str]
) -> None:
    @app.get("/storing")
    def storing() -> None:
        raise OSError(number, os.strerror(number), "/a/secret/path")

    app.router.routes.insert(0, app.router.routes.pop())
    answer = http.get("/storing")
    assert problem(answer) == told
    assert "secret" not in answer.text


def test_connections_that_cannot_be_taken_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(LoopFaults())
        refused = OSError(errno.EMFILE, "Too many open files")
        for _ in range(2048):  # as asyncio does for each place of the backlog
            loop.call_exception_handler({"message": "socket.accept()", "exception": refused})
        loop.call_exception_handler({"message": "something else"})
    told = [record.getMessage() for record in caplog.records]
    assert told == ["connection=refused error=Too many open files", "something else"]


@pytest.mark.parametrize("path", ["/internal/v1/health", "/nowhere", "/management/v1/runs", "/faulty"])
def test_answers_say_that_they_are_not_to_be_kept_guessed_or_shown(
    http: httpx.Client, app: FastAPI, path: str
) -> None:
    @app.get("/faulty")
    def faulty() -> None:
        raise RuntimeError("answered outside of everything else")

    app.router.routes.insert(0, app.router.routes.pop())
    headers = http.get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in headers  # which means nothing without TLS


def test_value_that_the_database_cannot_hold_is_no_fault_of_the_service(operator: Operator) -> None:
    answer = operator.send("GET", "/runs/%00")
    assert problem(answer) in ((404, "not_found"), (422, "malformed_message"))  # SQLite looks, PostgreSQL not


@pytest.mark.parametrize("cursor", ["letters", "-1", "1.5", "9" * 19, "%00"])
def test_cursor_of_another_listing_is_refused(operator: Operator, cursor: str) -> None:
    answer = operator.send("GET", f"/transitions?cursor={cursor}")
    assert problem(answer) == (422, "malformed_message")


def test_probes_answer_without_a_token(http: httpx.Client) -> None:
    assert http.get("/internal/v1/health").json() == {"status": "ok"}
    assert http.get("/internal/v1/ready").json() == {"status": "ok"}


def test_readiness_fails_without_the_object_store(http: httpx.Client, service: Service) -> None:
    service.objects.root.rename(service.objects.root.with_name("elsewhere"))
    assert problem(http.get("/internal/v1/ready")) == (503, "unavailable")


def test_readiness_fails_without_the_round_worker(http: httpx.Client, app: FastAPI) -> None:
    app.state.worker.stop()
    assert problem(http.get("/internal/v1/ready")) == (503, "unavailable")
    assert http.get("/internal/v1/health").is_success


def test_contract_names_every_path_of_the_protocol(http: httpx.Client) -> None:
    contract = http.get("/openapi.json").json()
    paths = set(contract["paths"])
    assert {
        "/device/v1/devices",
        "/device/v1/devices:rotate-key",
        "/device/v1/check-ins",
        "/device/v1/objects/{sha256}",
        "/device/v1/assignments/{assignment_id}:start",
        "/device/v1/assignments/{assignment_id}/update",
        "/device/v1/assignments/{assignment_id}/uploads",
        "/device/v1/uploads/{upload_id}",
        "/device/v1/assignments/{assignment_id}:submit",
        "/device/v1/assignments/{assignment_id}:fail",
        "/device/v1/assignments/{assignment_id}:mask",
        "/device/v1/adoptions/{assignment_id}:start",
        "/device/v1/adoptions/{assignment_id}:submit",
        "/device/v1/adoptions/{assignment_id}:fail",
        "/device/v1/evaluations/{assignment_id}:start",
        "/device/v1/evaluations/{assignment_id}:submit",
        "/device/v1/evaluations/{assignment_id}:fail",
        "/management/v1/populations",
        "/management/v1/populations/{name}:rotate-token",
        "/management/v1/populations/{name}:set-privacy-budget",
        "/management/v1/populations/{name}/privacy",
        "/management/v1/objects/{sha256}",
        "/management/v1/bundles",
        "/management/v1/bundles/{digest}/manifest",
        "/management/v1/runs",
        "/management/v1/runs/{run_id}",
        "/management/v1/runs/{run_id}:{verb}",
        "/management/v1/runs/{run_id}/rounds",
        "/management/v1/runs/{run_id}/figures",
        "/management/v1/runs/{run_id}/assignments",
        "/management/v1/runs/{run_id}/adapters",
        "/management/v1/adapters/{version}/content",
        "/management/v1/adapters/{version}/frozen",
        "/management/v1/adapters/{version}",
        "/management/v1/adapters/{version}/manifest",
        "/management/v1/adapters/{version}/notes",
        "/management/v1/signing-keys",
        "/management/v1/populations/{name}/aliases",
        "/management/v1/populations/{name}/aliases/{alias}",
        "/management/v1/populations/{name}/aliases/{alias}:set",
        "/management/v1/populations/{name}/aliases/{alias}:remove",
        "/management/v1/populations/{name}/aliases/{alias}/history",
        "/management/v1/quarantine",
        "/management/v1/quarantine/{assignment_id}",
        "/management/v1/quarantine/{assignment_id}/content",
        "/management/v1/quarantine/{assignment_id}:{verb}",
        "/management/v1/populations/{name}:suspend-after",
        "/management/v1/devices/{device_id}/reputation",
        "/management/v1/devices/{device_id}:label",
        "/management/v1/devices/{device_id}/rollouts",
        "/management/v1/groups",
        "/management/v1/groups/{group_id}",
        "/management/v1/groups/{group_id}:delete",
        "/management/v1/rollouts",
        "/management/v1/rollouts/{rollout_id}",
        "/management/v1/rollouts/{rollout_id}/devices",
        "/management/v1/rollouts/{rollout_id}:{verb}",
        "/management/v1/devices",
        "/management/v1/devices:preauthorize",
        "/management/v1/devices/{device_id}:decide",
        "/management/v1/devices/{device_id}/replaced-keys",
        "/management/v1/devices/{device_id}/assignments",
        "/management/v1/transitions",
        "/management/v1/keys",
        "/management/v1/keys/{key_id}:revoke",
        "/management/v1/whoami",
        "/management/v1/audit",
        "/internal/v1/health",
        "/internal/v1/ready",
        "/internal/v1/metrics",
    } == paths
    schemas = contract["components"]["schemas"]
    assert {"CheckIn", "Offer", "Plan", "Report", "Receipt", "RunCreate", "RunStatus"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    answers = contract["paths"]["/device/v1/check-ins"]["post"]["responses"]
    schema = answers["422"]["content"]["application/problem+json"]["schema"]
    assert schema["required"] == Problem.model_json_schema()["required"]


def test_token_never_reaches_the_log(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        operator.population("camera")
    assert TOKEN not in caplog.text
