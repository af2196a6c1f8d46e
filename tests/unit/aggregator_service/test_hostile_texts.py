"""Texts that a database cannot keep, or that are no Unicode, wherever a caller may write one."""

from __future__ import annotations

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_operator import Operator
from service_server import problem

HOSTILE = [r"\u0000", r"\ud800", r"\udc00x"]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("text", HOSTILE)
def test_operators_message_with_a_hostile_text_is_refused(
    operator: Operator, device: FakeDevice, text: str
) -> None:
    for path, body in (
        (f"/devices/{device.device_id}:decide", '{"state": "suspended", "reason": "a%s"}'),
        (
            "/devices:preauthorize",
            f'{{"population": "keyboard", "device_id": "{"0" * 32}", "name": "a%s"}}',
        ),
        ("/populations", '{"name": "camera", "a%s": 1}'),
        ("/populations", '{"name": "camera%s"}'),
    ):
        answer = operator.send("POST", path, content=body.replace("%s", text), headers=JSON)
        assert problem(answer) == (422, "malformed_message"), (path, answer.text)


@pytest.mark.parametrize("text", HOSTILE)
def test_devices_message_with_a_hostile_text_is_refused(
    http: httpx.Client, clock: FakeClock, device: FakeDevice, operator: Operator, bundle: str, text: str
) -> None:
    operator.run(bundle)
    assignment_id = device.started()
    body = '{"code": "internal_error", "message": "a%s"}'.replace("%s", text).encode()
    answer = device.send("POST", f"/assignments/{assignment_id}:fail", content=body)
    assert problem(answer) == (422, "malformed_message")
    newcomer = FakeDevice(http, clock, seed=5)
    body = (
        '{"population": "keyboard", "enrolment_token": "t%s", "public_key": "%k"}'.replace("%s", text)
        .replace("%k", newcomer.public_key)
        .encode()
    )
    assert problem(newcomer.send("POST", "/devices", content=body)) == (422, "malformed_message")


@pytest.mark.parametrize(
    "path", ["/runs/%00", "/adapters/%00/content", "/runs?cursor=%00", "/bundles?cursor=%ff"]
)
def test_hostile_text_in_an_address_is_refused(operator: Operator, path: str) -> None:
    answer = operator.send("GET", path)
    assert problem(answer) == (422, "malformed_message")


def test_hostile_text_in_a_query_is_refused(operator: Operator) -> None:
    for query in ("subject_id=%00", "cursor=%00", "subject=%00"):
        assert problem(operator.send("GET", f"/transitions?{query}")) == (422, "malformed_message")
    assert problem(operator.send("GET", "/devices?population=a%00")) == (422, "malformed_message")
