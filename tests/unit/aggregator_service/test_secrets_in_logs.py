"""What the service's log tells at its most talkative: never what would open a door."""

from __future__ import annotations

import logging

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from service_server import served

from aggregator_service.app import create_app
from aggregator_service.service import open_service
from aggregator_service.settings import Settings


def test_log_of_a_round_holds_no_token_key_or_signature(
    settings: Settings, clock: FakeClock, bundle: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request of every kind of secret, from the opening of the service to its end, at DEBUG."""
    signed: list[str] = []

    class RememberingDevice(FakeDevice):
        def signed(self, method: str, path: str, body: bytes = b"", **changes: object) -> dict[str, str]:
            headers = super().signed(method, path, body, **changes)
            signed.extend(headers[name] for name in ("Signature", "Signature-Input"))
            return headers

    for name in ("httpx", "httpcore"):  # clients of this test, no part of the service
        caplog.set_level(logging.WARNING, logger=name)
    with (
        caplog.at_level(logging.DEBUG),
        served(create_app(open_service(settings, clock)), settings) as http,
    ):
        operator = Operator(http)
        headers = {"Idempotency-Key": "an-idempotency-key"}
        created = operator.call("POST", "/keys", json={"name": "alice", "role": "admin"}, headers=headers)
        alice = Operator(http, created["token"])
        enrolment_token = alice.population("camera")
        device = RememberingDevice(http, clock).enrol(enrolment_token, "camera")
        run_id = alice.run(bundle, population="camera")
        assignment_id = str(device.check_in(population="camera")["offer"]["assignment_id"])
        device.call("POST", f"/assignments/{assignment_id}:start", {"rank": 2})
        assert device.upload(assignment_id, make_adapter(2)).is_success
        assert device.submit(assignment_id, make_adapter(2)).is_success
        alice.committed(run_id)
        # And what is refused, with secrets that are nearly right.
        Operator(http, alice.token + "x").send("GET", "/runs")
        RememberingDevice(http, clock, 2).send("POST", "/check-ins", {})
        alice.send("POST", "/populations", json={"name": enrolment_token})
    told = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert f"run={run_id} old=running new=completed" in told
    assert "SELECT" in told  # the database's own records were there to look through
    secrets = [TOKEN, alice.token, alice.token[-43:], enrolment_token, *signed]
    assert len(signed) > 10
    assert [secret for secret in secrets if secret in told] == []
