"""The fleet that the end-to-end tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_fleet import POPULATION, Fleet

from benchmarks.fleet import Service
from hetlora.bundle import Bundle


@pytest.fixture
def fleet(tmp_path: Path, tiny_bundle: Bundle) -> Iterator[Fleet]:
    """A running service with the tiny bundle published; its devices end with the test."""
    pace = {"HETLORA_RETRY_SECONDS": "0.2", "HETLORA_IDLE_RETRY_SECONDS": "0.2"}
    service = Service(tmp_path / "service", tmp_path / "service.log", pace)
    with service, service.operator() as operator:
        token = operator.create_population(POPULATION).enrolment_token
        operator.publish_bundle(tiny_bundle)
        fleet = Fleet(tmp_path, service, operator, tiny_bundle, token)
        try:
            yield fleet
        finally:
            for device in fleet.devices:
                device.stop()
