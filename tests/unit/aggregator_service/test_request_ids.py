"""One id for each request: in its answer, in the problem it ends in, and on every line it logs."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from service_bundle import make_adapter
from service_operator import Operator

from aggregator_service.observability.logs import JsonLines

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Lines:
    """What is logged, as a machine reads it."""

    def __init__(self) -> None:
        self.stream = StringIO()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.stream.getvalue().splitlines())


@pytest.fixture
def lines() -> Iterator[Lines]:
    told, logger = Lines(), logging.getLogger("aggregator_service")
    handler = logging.StreamHandler(told.stream)
    handler.setFormatter(JsonLines())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield told
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_answer_carries_the_id_that_its_request_brought(http: httpx.Client) -> None:
    answer = http.get("/internal/v1/health", headers={"X-Request-Id": "proxy-7.A"})
    assert answer.headers["x-request-id"] == "proxy-7.A"


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, "-dash", "a=b"])
def test_id_that_is_no_plain_word_is_replaced(http: httpx.Client, given: str) -> None:
    answer = http.get("/internal/v1/health", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("traceparent", "taken"),
    [
        (f"00-{TRACE_ID}-b7ad6b7169203331-01", True),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-{TRACE_ID}-b7ad6b7169203331", False),
    ],
)
def test_trace_that_a_request_is_part_of_gives_it_its_id(
    http: httpx.Client, traceparent: str, taken: bool
) -> None:
    answer = http.get("/internal/v1/health", headers={"traceparent": traceparent})
    assert (answer.headers["x-request-id"] == TRACE_ID) is taken


def test_problem_names_its_request(http: httpx.Client) -> None:
    answer = http.get("/nowhere", headers={"X-Request-Id": "r-1"})
    assert answer.json()["instance"] == "urn:hetlora:request:r-1"


def test_fault_that_nobody_foresaw_is_found_in_the_log_by_the_id_in_its_answer(
    http: httpx.Client, app: FastAPI, lines: Lines
) -> None:
    @app.get("/faulty")
    def faulty() -> None:
        raise RuntimeError("of the inside")

    app.router.routes.insert(0, app.router.routes.pop())
    answer = http.get("/faulty")
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    told = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert told[0]["exception"].endswith("RuntimeError: of the inside")
    assert answer.json()["instance"].endswith(f":{answer.headers['x-request-id']}")


def test_answer_that_breaks_off_is_told_with_its_id(http: httpx.Client, app: FastAPI, lines: Lines) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"the first"
        raise RuntimeError("the disk is gone")

    @app.get("/broken")
    def broken() -> StreamingResponse:
        return StreamingResponse(pieces())

    app.router.routes.insert(0, app.router.routes.pop())
    with pytest.raises(httpx.RemoteProtocolError):
        http.get("/broken", headers={"X-Request-Id": "r-1"})
    [told] = [line for line in lines if "exception" in line]
    assert (told["request_id"], told["path"]) == ("r-1", "/broken")


def test_lines_of_a_request_carry_its_id_its_device_and_its_run(
    operator: Operator, device: FakeDevice, bundle: str, lines: Lines
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.offer()["assignment_id"]
    given = [line for line in lines if line.get("assignment") == assignment_id]
    assert [(line["new"], line["device"], line["run"]) for line in given] == [
        ("offered", device.device_id, run_id)
    ]
    assert re.fullmatch("[0-9a-f]{32}", given[0]["request_id"])


def test_lines_of_a_request_about_an_assignment_carry_its_round(
    operator: Operator, device: FakeDevice, bundle: str, lines: Lines
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.started()
    taken = [line for line in lines if line.get("assignment") == assignment_id and line["old"] == "offered"]
    assert [(line["run"], line["round"]) for line in taken] == [(run_id, f"{run_id}-000000-0000")]


def test_entry_of_the_audit_log_has_the_id_of_the_answer(operator: Operator) -> None:
    answer = operator.send("POST", "/populations", json={"name": "camera"})
    asked = [entry["request_id"] for entry in operator.items("/audit")]
    assert asked.count(answer.headers["x-request-id"]) == 1


def test_lines_of_a_commit_carry_its_run_and_round(
    operator: Operator, device: FakeDevice, bundle: str, lines: Lines
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    [version] = [line for line in lines if line.get("adapter_version") == f"{run_id}-v000001"]
    assert (version["run"], version["round"]) == (run_id, f"{run_id}-000000-0000")
    assert "request_id" not in version


@pytest.mark.parametrize(("log_format", "first"), [("json", "{"), ("text", "2")])
def test_process_logs_in_the_format_that_is_set(tmp_path: Path, log_format: str, first: str) -> None:
    command = [
        sys.executable,
        "-m",
        "hetlora.cli",
        "serve",
        "--port",
        "0",
        "--data-dir",
        str(tmp_path),
        "--json",
    ]
    environment = os.environ | {"HETLORA_LOG_FORMAT": log_format}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.terminate()
        _, told = running.communicate(timeout=20)
    [listening] = [line for line in told.splitlines() if "listening=" in line]
    assert listening.startswith(first)
    assert {line[0] for line in told.splitlines()} == {first}
