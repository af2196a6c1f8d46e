"""How an upload in parts begins: what a device promises, and what the service answers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from fake_clock import FakeClock
from service_bundle import SPEC, make_adapter
from service_objects import stored_parts
from service_operator import Operator
from service_server import problem
from tus_device import HALF, UPDATE, TusDevice, pair

from aggregator_service.service import Service
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes, max_adapter_bytes


def test_creation_answers_where_the_upload_is_and_until_when(
    tus: TusDevice, assignment_id: str, clock: FakeClock
) -> None:
    answer = tus.begin(assignment_id, UPDATE)
    assert answer.status_code == 201
    assert answer.headers["Location"].startswith("/device/v1/uploads/")
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Upload-Offset"] == "0"
    expires_at = parsedate_to_datetime(answer.headers["Upload-Expires"])
    assert (expires_at - clock.now).total_seconds() == 100


def test_options_tell_what_the_service_can(tus: TusDevice, assignment_id: str) -> None:
    for spoken in (None, "0.2.2"):  # which tus has a server ignore here
        answer = tus.send("OPTIONS", f"/assignments/{assignment_id}/uploads", tus_resumable=spoken)
        assert answer.status_code == 204
        told = {name: value for name, value in answer.headers.items() if name.startswith("tus-")}
        assert told == {
            "tus-version": "1.0.0",
            "tus-resumable": "1.0.0",
            "tus-extension": "creation,expiration,checksum,termination",
            "tus-max-size": str(256 * 1024**2),
            "tus-checksum-algorithm": "sha256,sha1",
        }


def test_creation_of_the_same_update_answers_the_upload_that_is_open(
    tus: TusDevice, assignment_id: str, upload_id: str
) -> None:
    tus.patch(upload_id, 0, UPDATE[:HALF])
    again = tus.begin(assignment_id, UPDATE)
    assert again.status_code == 201
    assert again.headers["Location"].endswith(upload_id)
    assert again.headers["Upload-Offset"] == str(HALF)


def test_update_that_is_in_already_need_not_be_sent_again(tus: TusDevice, assignment_id: str) -> None:
    assert tus.device.upload(assignment_id, UPDATE).is_success
    answer = tus.begin(assignment_id, UPDATE)
    assert answer.headers["Upload-Offset"] == str(len(UPDATE))
    other = adapter_to_bytes(make_adapter(1))
    assert tus.begin(assignment_id, other).headers["Upload-Offset"] == "0"


def test_hostile_promise_is_refused(tus: TusDevice, assignment_id: str) -> None:
    for length in (None, "0", "-1", "1e3", "1_000", str(2**53), "9" * 16, "9" * 17, ""):
        answer = tus.begin(assignment_id, UPDATE, upload_length=length)
        assert problem(answer) == (422, "malformed_message")
    for metadata in (None, "", "sha256 AAAA", "filename AAAA", f"{pair('0' * 64)},filename AAAA"):
        answer = tus.begin(assignment_id, UPDATE, upload_metadata=metadata)
        assert problem(answer) == (422, "malformed_message")


def test_promise_of_too_much_is_refused_before_a_byte_comes(tus: TusDevice, assignment_id: str) -> None:
    limit = max_adapter_bytes(SPEC)
    for length in (limit + 1, 10**15 - 1):
        answer = tus.begin(assignment_id, UPDATE, upload_length=str(length))
        assert problem(answer) == (413, "body_too_large")
    assert tus.begin(assignment_id, UPDATE, upload_length=str(limit)).status_code == 201


def test_creation_with_a_body_is_refused_and_begins_nothing(
    tus: TusDevice, assignment_id: str, operator: Operator
) -> None:
    path = f"/assignments/{assignment_id}/uploads"
    promised = {"upload_length": str(len(UPDATE)), "upload_metadata": pair(sha256_of(UPDATE))}
    for body in (b"x", UPDATE):  # tus has an extension by which a first part comes here; it is not told of
        answer = tus.send("POST", path, body, **promised)
        assert problem(answer) == (413, "body_too_large")
        assert answer.json()["expected"] == "up to 0 bytes"
        assert answer.headers["Connection"] == "close"
    unannounced = tus.device.signed("POST", f"/device/v1{path}", b"x") | {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": promised["upload_length"],
        "Upload-Metadata": promised["upload_metadata"],
    }
    answer = tus.device.http.post(f"/device/v1{path}", content=iter([b"x"]), headers=unannounced)
    assert problem(answer) == (413, "body_too_large")
    assert "hetlora_uploads_open 0.0" in operator.http.get("/internal/v1/metrics").text


def test_creation_that_signed_a_body_it_does_not_bring_is_refused(tus: TusDevice, assignment_id: str) -> None:
    path = f"/device/v1/assignments/{assignment_id}/uploads"
    headers = tus.device.signed("POST", path, UPDATE) | {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": str(len(UPDATE)),
        "Upload-Metadata": pair(sha256_of(UPDATE)),
    }
    assert problem(tus.device.http.post(path, headers=headers)) == (422, "digest_mismatch")


def test_oldest_upload_of_a_device_makes_room_for_one_more(
    tus: TusDevice, assignment_id: str, service: Service, clock: FakeClock
) -> None:
    most = service.settings.max_open_uploads
    updates = [adapter_to_bytes(make_adapter(2, scale)) for scale in range(1, most + 2)]
    begun = []
    for update in updates:
        begun.append(tus.begun(assignment_id, update))
        assert tus.patch(begun[-1], 0, update[:HALF]).status_code == 204
        clock.advance(1)
    assert [tus.head(upload_id).status_code for upload_id in begun] == [404] + [200] * most
    assert len(stored_parts(service)) == most


def test_upload_needs_a_started_assignment(operator: Operator, tus: TusDevice, bundle: str) -> None:
    operator.run(bundle)
    offered = tus.device.offer()["assignment_id"]
    assert problem(tus.begin(offered, UPDATE)) == (409, "state_conflict")
