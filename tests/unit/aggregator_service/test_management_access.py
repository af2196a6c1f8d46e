"""The operator's token, populations, and the devices enrolled in them."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest
from fake_device import FakeDevice
from pydantic import SecretStr
from service_operator import TOKEN, Operator
from service_server import problem
from sqlalchemy import select

from aggregator_service.service import TOKEN_FILE, Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import Base
from hetlora.digest import sha256_of


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong-token", "Bearer", f"Basic {TOKEN}", f"Bearer  {TOKEN}", TOKEN]
)
def test_missing_or_wrong_operator_token_is_refused(http: httpx.Client, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = http.get("/management/v1/runs", headers=headers)
    assert problem(answer) == (401, "authentication_failed")


def test_device_signature_opens_no_operator_door(device: FakeDevice, http: httpx.Client) -> None:
    answer = http.get("/management/v1/runs", headers=device.signed("GET", "/management/v1/runs"))
    assert problem(answer) == (401, "authentication_failed")


def test_token_is_generated_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=0, operator_token=None)
    first = open_service(settings)
    token = (tmp_path / TOKEN_FILE).read_text().strip()
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600
    assert first.operator_token_sha256 == sha256_of(token.encode())
    first.close()
    assert token.encode() not in (tmp_path / "hetlora.sqlite").read_bytes()
    # The operator may take the file away: the hash in the database stays in force.
    (tmp_path / TOKEN_FILE).unlink()
    again = open_service(settings)
    assert again.operator_token_sha256 == first.operator_token_sha256
    assert not (tmp_path / TOKEN_FILE).exists()
    again.close()


def test_folder_of_a_service_is_its_users_alone(tmp_path: Path) -> None:
    open_service(Settings(data_dir=tmp_path / "made")).close()
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    (tmp_path / "given").mkdir(mode=0o750)
    open_service(Settings(data_dir=tmp_path / "given")).close()
    assert stat.S_IMODE((tmp_path / "given").stat().st_mode) == 0o750


def test_token_from_the_settings_is_written_nowhere(tmp_path: Path) -> None:
    service = open_service(Settings(data_dir=tmp_path, operator_token=SecretStr(TOKEN)))
    service.close()
    assert not (tmp_path / TOKEN_FILE).exists()
    assert TOKEN not in repr(service.settings)


def everything_in(service: Service) -> str:
    """All rows of all tables."""
    with service.database.read() as session:
        return str([session.execute(select(table)).all() for table in Base.metadata.sorted_tables])


def test_population_shows_its_token_once_and_keeps_a_hash(
    operator: Operator, service: Service, enrolment_token: str
) -> None:
    assert [item["name"] for item in operator.items("/populations")] == ["keyboard"]
    assert enrolment_token not in everything_in(service)
    answer = operator.send("POST", "/populations", json={"name": "keyboard"})
    assert problem(answer) == (409, "state_conflict")


def test_listing_of_populations_counts_their_devices(operator: Operator, device: FakeDevice) -> None:
    (population,) = operator.items("/populations")
    assert (population["name"], population["devices"]) == ("keyboard", 1)
    (details,) = operator.items("/devices?population=keyboard")
    assert (details["device_id"], details["state"], details["capabilities"]) == (
        device.device_id,
        "accepted",
        None,
    )
    device.check_in()
    (details,) = operator.items("/devices")
    assert details["capabilities"]["cores"] == 2
    assert details["last_contact_at"] == "2026-11-20T12:00:00Z"
    assert operator.items("/devices?population=camera") == []


def test_illegal_decision_about_a_device_is_refused(operator: Operator, device: FakeDevice) -> None:
    answer = operator.send("POST", f"/devices/{device.device_id}:decide", json={"state": "pending"})
    assert problem(answer) == (409, "state_conflict")
    assert answer.json()["got"] == "state accepted: enrolment token"
