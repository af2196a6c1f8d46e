from __future__ import annotations

import json
import stat
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from service_helpers import (
    FILES,
    TOKEN,
    FakeClock,
    FakeDevice,
    Operator,
    make_adapter,
    make_manifest,
    problem,
)
from service_server import served

from aggregator_service.app import create_app
from aggregator_service.service import TOKEN_FILE, Service, open_service
from aggregator_service.settings import Settings
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


def test_token_from_the_settings_is_written_nowhere(tmp_path: Path) -> None:
    service = open_service(Settings(data_dir=tmp_path, operator_token=SecretStr(TOKEN)))
    service.close()
    assert not (tmp_path / TOKEN_FILE).exists()
    assert TOKEN not in repr(service.settings)


def test_population_shows_its_token_once_and_keeps_a_hash(
    operator: Operator, service: Service, enrolment_token: str
) -> None:
    assert [item["name"] for item in operator.items("/populations")] == ["keyboard"]
    assert enrolment_token.encode() not in (service.settings.data_dir / "hetlora.sqlite").read_bytes()
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


def test_object_whose_bytes_are_not_its_name_is_refused(operator: Operator, service: Service) -> None:
    answer = operator.send("PUT", f"/objects/{sha256_of(b'what was meant')}", content=b"what was sent")
    assert problem(answer) == (422, "digest_mismatch")
    assert list(service.objects.incoming.iterdir()) == []


def test_object_with_a_wrong_digest_header_is_refused(operator: Operator) -> None:
    data = b"data"
    headers = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
    answer = operator.send("PUT", f"/objects/{sha256_of(data)}", content=data, headers=headers)
    assert problem(answer) == (422, "digest_mismatch")


def test_head_tells_whether_an_object_is_there(operator: Operator) -> None:
    digest = sha256_of(b"new")
    assert operator.send("HEAD", f"/objects/{digest}").status_code == 404
    operator.put(b"new")
    answer = operator.send("HEAD", f"/objects/{digest}")
    assert (answer.status_code, answer.headers["content-length"]) == (200, "3")


def test_bundle_is_described_from_its_manifest(operator: Operator, bundle: str) -> None:
    manifest = make_manifest().to_json()
    (status,) = operator.items("/bundles")
    assert status == {
        "digest": sha256_of(manifest),
        "base_model": "tiny",
        "task": "text-classification",
        "max_rank": 2,
        "size_bytes": len(manifest) + sum(map(len, FILES.values())),
    }
    assert operator.send("GET", f"/bundles/{bundle}/manifest").content == manifest
    assert problem(operator.send("GET", f"/bundles/{'0' * 64}/manifest")) == (404, "not_found")


def test_bundle_with_a_missing_file_is_refused(operator: Operator, service: Service, bundle: str) -> None:
    name = "base.bin"
    service.objects.path(sha256_of(FILES[name])).unlink()
    answer = operator.send("POST", "/bundles", json={"digest": bundle})
    assert problem(answer) == (404, "not_found")
    assert answer.json()["detail"] == "base.bin was never uploaded"


def test_bundle_with_one_flipped_byte_is_refused_until_it_is_uploaded_again(
    operator: Operator, service: Service, bundle: str
) -> None:
    path = service.objects.path(sha256_of(FILES["base.bin"]))
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    answer = operator.send("POST", "/bundles", json={"digest": bundle})
    assert problem(answer) == (422, "digest_mismatch")
    assert answer.json()["detail"] == "base.bin does not match its digest"
    operator.put(FILES["base.bin"])
    operator.call("POST", "/bundles", json={"digest": bundle})


def test_manifest_that_lies_about_a_size_is_refused(operator: Operator) -> None:
    manifest = make_manifest()
    entry = manifest.files["base.bin"]
    lying = manifest.model_copy(
        update={"files": manifest.files | {"base.bin": entry.model_copy(update={"size_bytes": 1})}}
    )
    digest = operator.put(lying.to_json())
    answer = operator.send("POST", "/bundles", json={"digest": digest})
    assert problem(answer) == (422, "bundle_invalid")


@pytest.mark.parametrize(
    "adapter",
    [
        {"max_rank": 2**63},
        {"modules": [{"name": "key", "in_features": 10**30, "out_features": 10**30}], "max_rank": 10**30},
        {"modules": [{"name": "key", "in_features": 10**14, "out_features": 10**14}]},
    ],
)
def test_manifest_of_an_adapter_that_no_service_could_make_is_refused(
    operator: Operator, adapter: dict[str, object]
) -> None:
    fields = json.loads(make_manifest().to_json())
    digest = operator.put(json.dumps(fields | {"adapter": fields["adapter"] | adapter}).encode())
    assert problem(operator.send("POST", "/bundles", json={"digest": digest})) == (422, "bundle_invalid")


def test_object_that_is_no_manifest_is_refused_as_a_bundle(operator: Operator) -> None:
    digest = operator.put(b"{}")
    assert problem(operator.send("POST", "/bundles", json={"digest": digest})) == (422, "bundle_invalid")
    answer = operator.send("POST", "/bundles", json={"digest": "0" * 64})
    assert problem(answer) == (404, "not_found")


@pytest.mark.parametrize(
    ("chosen", "code"),
    [
        ({"max_rank": 3}, "settings_invalid"),
        ({"training": {"max_tokens": 65}}, "settings_invalid"),
        ({"min_rank": 2, "max_rank": 1}, "malformed_message"),
        ({"rule": "mean"}, "malformed_message"),
        ({"goal_count": 0}, "malformed_message"),
    ],
)
def test_run_that_the_bundle_cannot_serve_is_refused(
    operator: Operator, bundle: str, chosen: dict[str, object], code: str
) -> None:
    body = {
        "population": "keyboard",
        "bundle": bundle,
        "settings": {"goal_count": 1, "max_rank": 2, **chosen},
    }
    assert problem(operator.send("POST", "/runs", json=body)) == (422, code)


@pytest.mark.parametrize("changes", [{"population": "camera"}, {"bundle": "0" * 64}])
def test_run_of_unknown_population_or_bundle_is_refused(
    operator: Operator, bundle: str, changes: dict[str, str]
) -> None:
    body = {"population": "keyboard", "bundle": bundle, "settings": {"goal_count": 1, "max_rank": 2}}
    assert problem(operator.send("POST", "/runs", json=body | changes)) == (404, "not_found")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_draft_run_can_only_be_started_or_stopped(operator: Operator, bundle: str, verb: str) -> None:
    run_id = operator.run(bundle, start=False)
    assert problem(operator.send("POST", f"/runs/{run_id}:{verb}")) == (409, "state_conflict")
    assert operator.call("POST", f"/runs/{run_id}:stop")["state"] == "stopped"
    assert problem(operator.send("POST", f"/runs/{run_id}:start")) == (409, "state_conflict")


def test_paused_run_cannot_be_started_again(operator: Operator, bundle: str) -> None:
    run_id = operator.run(bundle)
    operator.call("POST", f"/runs/{run_id}:pause")
    assert problem(operator.send("POST", f"/runs/{run_id}:start")) == (409, "state_conflict")


@pytest.mark.parametrize("path", ["", "/rounds", "/assignments", "/adapters"])
def test_unknown_run_is_not_found(operator: Operator, path: str) -> None:
    assert problem(operator.send("GET", f"/runs/unknown{path}")) == (404, "not_found")


def test_unknown_things_are_not_found(operator: Operator) -> None:
    assert problem(operator.send("POST", "/runs/unknown:start")) == (404, "not_found")
    assert problem(operator.send("GET", "/adapters/unknown/content")) == (404, "not_found")
    answer = operator.send("POST", "/devices/unknown:decide", json={"state": "suspended"})
    assert problem(answer) == (404, "not_found")


def test_illegal_decision_about_a_device_is_refused(operator: Operator, device: FakeDevice) -> None:
    answer = operator.send("POST", f"/devices/{device.device_id}:decide", json={"state": "pending"})
    assert problem(answer) == (409, "state_conflict")
    assert answer.json()["got"] == "state accepted: enrolment token"


def test_pages_follow_the_cursor_to_the_end(operator: Operator, bundle: str) -> None:
    run_ids = sorted(operator.run(bundle, start=False) for _ in range(5))
    found, path = [], "/runs?limit=2"
    while path:
        page = operator.call("GET", path)
        found.append([item["run_id"] for item in page["items"]])
        path = f"/runs?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert found == [run_ids[:2], run_ids[2:4], run_ids[4:]]


def test_adapters_page_newest_first(operator: Operator, device: FakeDevice, bundle: str) -> None:
    run_id = operator.run(bundle, rounds=2)
    for rounds in (1, 2):
        device.deliver(make_adapter(2))
        operator.committed(run_id, rounds)
    first = operator.call("GET", f"/runs/{run_id}/adapters?limit=2")
    rest = operator.call("GET", f"/runs/{run_id}/adapters?limit=2&cursor={first['next_cursor']}")
    indices = [item["round_index"] for page in (first, rest) for item in page["items"]]
    assert indices == [1, 0, -1]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=" + "x" * 129])
def test_page_out_of_bounds_is_refused(operator: Operator, query: str) -> None:
    assert problem(operator.send("GET", f"/runs?{query}")) == (422, "malformed_message")


@pytest.mark.parametrize("round_index", ["-1", str(2**53), str(2**63), "9" * 5000])
def test_round_index_that_no_database_can_hold_is_refused(
    operator: Operator, bundle: str, round_index: str
) -> None:
    run_id = operator.run(bundle)
    answer = operator.send("GET", f"/runs/{run_id}/assignments?round_index={round_index}")
    assert problem(answer) == (422, "malformed_message")


def test_transitions_page_in_the_order_of_their_time(
    settings: Settings, clock: FakeClock, bundle: str
) -> None:
    with served(create_app(open_service(settings, clock)), settings) as http:
        operator = Operator(http)
        run_id = operator.run(bundle)
        clock.advance(1)
        operator.call("POST", f"/runs/{run_id}:stop")
        first = operator.call("GET", f"/transitions?subject=run&subject_id={run_id}&limit=2")
        rest = operator.call(
            "GET", f"/transitions?subject=run&subject_id={run_id}&limit=2&cursor={first['next_cursor']}"
        )
    listed = [(item["old"], item["new"], item["at"]) for page in (first, rest) for item in page["items"]]
    assert listed == [
        (None, "draft", "2026-11-20T12:00:00Z"),
        ("draft", "running", "2026-11-20T12:00:00Z"),
        ("running", "stopped", "2026-11-20T12:00:01Z"),
    ]
