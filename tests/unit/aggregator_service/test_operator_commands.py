"""`hetlora key` and `hetlora audit`, and the client that they share, against a real service."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fake_clock import FakeClock
from service_operator import TOKEN
from service_operator import Operator as Requests

from hetlora.cli.management_http import CREATE_TRIES, RETRY_SECONDS
from hetlora.cli.operator import Operator
from hetlora.errors import ServiceUnreachable
from hetlora.messages.operators import OperatorRole


def command(http: httpx.Client, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    given = {"HETLORA_URL": str(http.base_url), "HETLORA_OPERATOR_TOKEN": token, "COLUMNS": "1000"}
    return subprocess.run(
        [sys.executable, "-m", "hetlora.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | given,
        check=False,
    )


def message_of(wire: socket.socket) -> bytes:
    """One request or answer, whole."""
    wire.settimeout(30)
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if end and length is not None and len(body) == int(length[1]):
            return data
        piece = wire.recv(65536)
        assert piece, data
        data += piece


@contextmanager
def losing_answers(http: httpx.Client, how_many: int) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a way to the service on which the first answers are lost, and what passed it."""
    passed: list[bytes] = []

    def carry() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # closed by the end of the block
                return
            with near, socket.create_connection((http.base_url.host, http.base_url.port)) as far:
                passed.append(message_of(near))
                far.sendall(passed[-1])
                answer = message_of(far)  # so that the service has done it
                if len(passed) > how_many:
                    near.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=carry)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", passed
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.slow
def test_key_is_made_used_and_revoked_by_commands(http: httpx.Client) -> None:
    created = json.loads(command(http, "key", "create", "alice", "--role", "viewer", "--json").stdout)
    key_id, token = created["key"]["key_id"], created["token"]
    assert command(http, "run", "list", token=token).returncode == 0
    refused = command(http, "population", "create", "camera", token=token)
    assert refused.returncode == 4
    assert "not_permitted" in refused.stderr
    assert "got role viewer; expected role admin" in refused.stderr
    listed = json.loads(command(http, "key", "list", "--json").stdout)["items"]
    assert [(key["key_id"], key["role"], key["revoked_at"]) for key in listed] == [(key_id, "viewer", None)]
    assert command(http, "key", "revoke", key_id).stdout == f"key {key_id} of alice: revoked\n"
    assert command(http, "run", "list", token=token).returncode == 4
    entries = json.loads(command(http, "audit", "list", "--key", key_id, "--json").stdout)["items"]
    assert [(entry["subject"], entry["status"]) for entry in entries] == [("", 403)]
    told = command(http, "audit", "list", "--most", "1", "--subject", key_id).stdout
    assert f"POST /management/v1/keys/{{key_id}}:revoke │ {key_id}" in told
    assert "POST /management/v1/keys  " not in told


def test_log_is_asked_for_by_time(http: httpx.Client, clock: FakeClock) -> None:
    clock.advance(3600)
    with Operator(str(http.base_url), TOKEN) as operator:
        operator.create_key("alice", OperatorRole.VIEWER)
        every = list(operator.audit())
    listed = command(http, "audit", "list", "--since", "2026-11-20T13:00:00", "--json")
    assert [entry["entry_id"] for entry in json.loads(listed.stdout)["items"]] == [every[0].entry_id]
    listed = command(http, "audit", "list", "--until", "2026-11-20T13:00:00", "--json")
    assert [entry["entry_id"] for entry in json.loads(listed.stdout)["items"]] == [
        entry.entry_id for entry in every[1:]
    ]


def test_log_is_exported_a_line_for_each_entry(http: httpx.Client, clock: FakeClock) -> None:
    with Operator(str(http.base_url), TOKEN) as operator:
        for number in range(120):  # more than a page
            operator.create_key(f"key-{number}", OperatorRole.VIEWER)
        clock.advance(1)
        operator.create_key("late", OperatorRole.VIEWER)
        every = [entry.model_dump(mode="json") for entry in operator.audit()]
    assert len(every) > 120
    exported = command(http, "audit", "export").stdout.splitlines()
    assert [json.loads(line) for line in exported] == every
    exported = command(http, "audit", "export", "--until", "2026-11-20T12:00:01").stdout.splitlines()
    assert [json.loads(line) for line in exported] == every[1:]


def test_creation_whose_answers_are_lost_is_made_once(http: httpx.Client) -> None:
    with (
        losing_answers(http, 2) as (url, passed),
        Operator(url, TOKEN) as operator,
    ):
        created = operator.create_key("alice", OperatorRole.VIEWER)
    assert len(passed) == 3
    requests = Requests(http, created.token)
    requests.call("GET", "/runs")
    assert [key["key_id"] for key in Requests(http).items("/keys")] == [created.key.key_id]


def test_token_whose_answers_are_lost_is_replaced_once(http: httpx.Client) -> None:
    with losing_answers(http, 2) as (url, passed), Operator(url, TOKEN) as operator:
        rotated = operator.rotate_token("keyboard")
    assert len(passed) == 3
    key = dict(line.split(b": ", 1) for line in passed[0].split(b"\r\n") if b": " in line)[b"Idempotency-Key"]
    answer = Requests(http).send(
        "POST",
        "/populations/keyboard:rotate-token",
        json={"token_valid_seconds": None},
        headers={"Idempotency-Key": key.decode()},
    )
    assert answer.json()["enrolment_token"] == rotated.enrolment_token


def test_creation_whose_answers_are_all_lost_is_told(http: httpx.Client) -> None:
    with (
        losing_answers(http, 3) as (url, passed),
        Operator(url, TOKEN) as operator,
        pytest.raises(ServiceUnreachable),
    ):
        operator.create_population("camera")
    assert len(passed) == 3
    assert len(Requests(http).items("/populations")) == 2


def test_absent_service_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    began = time.monotonic()
    with Operator(f"http://127.0.0.1:{port}", TOKEN) as operator, pytest.raises(ServiceUnreachable):
        operator.create_population("camera")
    assert time.monotonic() - began < (CREATE_TRIES - 1) * RETRY_SECONDS


def test_every_creation_has_a_key_of_its_own(http: httpx.Client) -> None:
    with Operator(str(http.base_url), TOKEN) as operator:
        made = {operator.create_key("alice", OperatorRole.VIEWER).key.key_id for _ in range(3)}
    assert len(made) == 3
