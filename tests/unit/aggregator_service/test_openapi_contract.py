"""The service is asked whatever its OpenAPI allows, and what not: it answers as it says that it would."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from fake_device import FakeDevice
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis import APIOperation, Case
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service_operator import TOKEN, Operator

from aggregator_service.settings import Settings
from hetlora.tus import PART_TYPE

pytestmark = pytest.mark.slow
schemathesis.serializer.alias(PART_TYPE, "application/octet-stream")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
REFUSALS = [str(status) for status in (401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 460)]
EXAMPLES = 20  # of each operation: requests that its schema allows, and others
SIGNED = ("Content-Digest", "Signature-Input", "Signature")


@dataclass
class Caller(AuthBase):
    """Signs as the device, or brings the operator's token, once a request stands as it will be sent."""

    device: FakeDevice

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if request.path_url.startswith("/management/"):
            request.headers["Authorization"] = f"Bearer {TOKEN}"
        elif request.path_url.startswith("/device/"):
            assert request.method is not None
            body = request.body.encode() if isinstance(request.body, str) else request.body or b""
            signed = self.device.signed(request.method, request.path_url, body)
            request.headers.update({name: signed[name] for name in SIGNED})
        return request


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"max_requests_per_minute": 100_000, "max_refused_enrolments_per_minute": 100_000}
    )


@pytest.fixture
def known(operator: Operator, device: FakeDevice, bundle: str) -> dict[str, str]:
    """What stands where a path asks for something: a run that waits for a device, and its first adapter."""
    run_id = operator.run(bundle, goal_count=3)
    assignment_id = device.started()
    tus = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "100",
        "Upload-Metadata": f"sha256 {base64.b64encode(bytes(32)).decode()}",
    }
    upload = device.send("POST", f"/assignments/{assignment_id}/uploads", headers=tus)
    version = operator.call("GET", f"/runs/{run_id}")["adapter_version"]
    pointing = {"version": version, "reason": "the first"}
    operator.call("POST", "/populations/keyboard/aliases/champion:set", json=pointing)
    return {
        "run_id": run_id,
        "version": version,
        "alias": "champion",
        "assignment_id": assignment_id,
        "upload_id": upload.headers["location"].rsplit("/", 1)[1],
        "device_id": device.device_id,
        "digest": bundle,
        "sha256": bundle,
        "name": "keyboard",
        "key_id": operator.call("POST", "/keys", json={"name": "another", "role": "viewer"})["key"]["key_id"],
    }


def test_every_answer_is_one_that_the_contract_tells_of(
    http: httpx.Client, device: FakeDevice, known: dict[str, str]
) -> None:
    contract = http.get("/openapi.json").json()
    operations = _operations(contract)
    assert len(operations) == sum(len(methods) for methods in contract["paths"].values())
    with requests.Session() as session:
        for operation in operations:
            there = {name: known[name] for name in re.findall("{(.+?)}", operation.path) if name in known}
            cases = operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE)
            if there:
                cases |= operation.as_strategy(path_parameters=there)
            hold(cases, lambda case: _call(case, session, str(http.base_url), Caller(device)))


def test_stranger_is_told_nothing_but_that_the_service_lives(
    http: httpx.Client, known: dict[str, str]
) -> None:
    for operation in _operations(http.get("/openapi.json").json()):
        path = re.sub("{(.+?)}", lambda found: known.get(found[1], "start"), operation.path)
        expected = 200 if path.startswith("/internal/v1/") else 401
        headers = {"Tus-Resumable": "1.0.0"} if "uploads" in path else {}
        body = {"population": "keyboard", "public_key": "C" * 43 + "="} if path.endswith("/devices") else None
        answer = http.request(operation.method, path, json=body, headers=headers)
        assert answer.status_code == expected, (operation.label, answer.text)


def _operations(contract: dict[str, Any]) -> list[APIOperation]:
    config = SchemathesisConfig.from_dict(
        {
            "generation": {"with-security-parameters": False},  # the caller brings them
            "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}},
        }
    )
    schema = schemathesis.openapi.from_dict(contract, config=config)
    return [found.ok() for found in schema.get_all_operations()]


def hold(cases: st.SearchStrategy[Case], call: Callable[[Case], None]) -> None:
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def every(case: Case) -> None:
        call(case)

    every()


def _call(case: Case, session: requests.Session, url: str, auth: AuthBase) -> None:
    case.call_and_validate(base_url=url, session=session, auth=auth, checks=CHECKS)
