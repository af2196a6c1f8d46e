"""`hetlora device status`: what a device folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fake_service import FakeService
from typer.testing import CliRunner

from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from hetlora.cli.main import app
from hetlora.errors import ServiceUnreachable, SettingsError

MakeClient = Callable[..., EdgeClient]


def said(folder: Path, *options: str) -> str:
    asked = ["device", "status", "--folder", str(folder), *options]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def waiting(service: FakeService, make_client: MakeClient) -> EdgeClient:
    """A device whose update found no service; it is open still."""
    client = make_client()
    # Check-in, enrolment, check-in, manifest, start, six files and the adapter pass.
    service.faults = [*[None] * 12, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    return client


def test_update_that_waits_is_told_to_machines(waiting: EdgeClient, folder: DeviceFolder) -> None:
    told = json.loads(said(folder.root, "--json"))
    [(name, size_bytes)] = told["assignment"].pop("stored_bytes").items()
    assert told == {
        "device_id": waiting.device_id,
        "assignment": {
            "assignment_id": "assignment-1",
            "run_id": "run-1",
            "progress": "trained",
            "trained_steps": 3,
            "steps": 3,
        },
    }
    assert name == "update"
    assert size_bytes > 4 * (4 * 4 + 6 * 4)  # float32 of both factors at rank 4, and a header


def test_delivered_update_leaves_nothing(
    service: FakeService, waiting: EdgeClient, folder: DeviceFolder
) -> None:
    assert waiting.run_once().outcome == "accepted"
    assert said(folder.root).splitlines() == [
        f"device {waiting.device_id}",
        "assignment assignment-1 of run run-1: delivered",
        "3 of 3 steps are trained and kept",
    ]


def test_device_before_its_first_assignment_says_so(make_client: MakeClient, folder: DeviceFolder) -> None:
    client = make_client()
    assert said(folder.root).splitlines() == [f"device {client.device_id}", "no assignment yet"]


def test_folder_of_no_device_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"expected device.sqlite in it"):
        said(tmp_path)
    assert [*tmp_path.iterdir()] == []
