"""Updates that come in parts, as tus 1.0 has it: each request and each of its answers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import SPEC, make_adapter
from service_objects import kept_updates, stored_parts
from service_operator import Operator
from service_server import problem
from tus_device import TusDevice, pair

from aggregator_service.service import Service
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes, max_adapter_bytes

UPDATE = adapter_to_bytes(make_adapter(2))
HALF = len(UPDATE) // 2


@pytest.fixture
def tus(device: FakeDevice) -> TusDevice:
    return TusDevice(device)


@pytest.fixture
def assignment_id(operator: Operator, device: FakeDevice, bundle: str) -> str:
    """A started assignment of a run that waits for one update."""
    operator.run(bundle, lease_seconds=100)
    return device.started()


@pytest.fixture
def upload_id(tus: TusDevice, assignment_id: str) -> str:
    return tus.begun(assignment_id, UPDATE)


def test_update_in_three_parts_is_taken_as_one(
    tus: TusDevice, assignment_id: str, upload_id: str, operator: Operator, service: Service
) -> None:
    third = -(-len(UPDATE) // 3)
    answers = tus.in_parts(upload_id, UPDATE, third)
    assert [answer.status_code for answer in answers] == [204] * 3
    assert [int(answer.headers["Upload-Offset"]) for answer in answers] == [third, 2 * third, len(UPDATE)]
    assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]
    assert stored_parts(service) == []
    assert list(service.objects.incoming.iterdir()) == []
    receipt = tus.device.submit(assignment_id, make_adapter(2)).json()
    assert receipt["state"] == "accepted"


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


def test_head_tells_how_far_an_upload_has_come(tus: TusDevice, upload_id: str) -> None:
    assert tus.patch(upload_id, 0, UPDATE[:HALF]).status_code == 204
    answer = tus.head(upload_id)
    assert answer.status_code == 200
    assert answer.headers["Upload-Offset"] == str(HALF)
    assert answer.headers["Upload-Length"] == str(len(UPDATE))
    assert answer.headers["Upload-Metadata"] == pair(sha256_of(UPDATE))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert "Upload-Expires" in answer.headers


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


def test_lost_answer_to_the_last_part_is_told_by_head_and_by_an_empty_part(
    tus: TusDevice, upload_id: str
) -> None:
    tus.in_parts(upload_id, UPDATE, HALF)
    assert tus.offset(upload_id) == len(UPDATE)
    again = tus.patch(upload_id, len(UPDATE), b"")
    assert (again.status_code, again.headers["Upload-Offset"]) == (204, str(len(UPDATE)))
    assert problem(tus.patch(upload_id, len(UPDATE), b"more")) == (413, "body_too_large")


def test_upload_that_was_replaced_begins_anew(tus: TusDevice, assignment_id: str, upload_id: str) -> None:
    tus.in_parts(upload_id, UPDATE, HALF)
    assert tus.device.upload(assignment_id, make_adapter(1)).is_success
    again = tus.begun(assignment_id, UPDATE)
    assert again != upload_id
    assert [answer.status_code for answer in tus.in_parts(again, UPDATE, HALF)] == [204] * len(
        range(0, len(UPDATE), HALF)
    )
    assert tus.device.submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"


def test_part_at_another_offset_is_refused(tus: TusDevice, upload_id: str, service: Service) -> None:
    for offset in (1, HALF + 1, len(UPDATE)):
        answer = tus.patch(upload_id, offset, UPDATE[:HALF])
        assert problem(answer) == (409, "offset_mismatch")
        assert (answer.json()["got"], answer.json()["expected"]) == (str(offset), "0")
    assert stored_parts(service) == []


def test_part_that_comes_twice_counts_once(tus: TusDevice, upload_id: str) -> None:
    assert tus.patch(upload_id, 0, UPDATE[:HALF]).status_code == 204
    assert problem(tus.patch(upload_id, 0, UPDATE[:HALF])) == (409, "offset_mismatch")
    assert tus.offset(upload_id) == HALF


def test_parts_out_of_order_are_refused_until_it_is_their_turn(tus: TusDevice, upload_id: str) -> None:
    first, second = UPDATE[:HALF], UPDATE[HALF:]
    assert problem(tus.patch(upload_id, HALF, second)) == (409, "offset_mismatch")
    assert tus.patch(upload_id, 0, first).status_code == 204
    assert tus.patch(upload_id, HALF, second).status_code == 204


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_part_that_fits_its_checksum_is_taken_and_another_is_not(
    tus: TusDevice, upload_id: str, service: Service, algorithm: str
) -> None:
    part = UPDATE[:HALF]
    checksum = f"{algorithm} {base64.b64encode(hashlib.new(algorithm, part).digest()).decode()}"
    damaged = tus.patch(upload_id, 0, b"x" * HALF, upload_checksum=checksum)
    assert problem(damaged) == (460, "checksum_mismatch")
    assert stored_parts(service) == []
    assert list(service.objects.incoming.iterdir()) == []
    assert tus.patch(upload_id, 0, part, upload_checksum=checksum).headers["Upload-Offset"] == str(HALF)


def test_part_that_is_not_what_was_signed_is_refused(tus: TusDevice, upload_id: str) -> None:
    path = f"/device/v1/uploads/{upload_id}"
    signed = tus.device.signed("PATCH", path, UPDATE[:HALF])
    headers = signed | {
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
    }
    answer = tus.device.http.patch(path, content=b"x" * HALF, headers=headers)
    assert problem(answer) == (460, "checksum_mismatch")
    assert tus.offset(upload_id) == 0


def test_checksum_of_another_form_is_refused(tus: TusDevice, upload_id: str) -> None:
    for checksum in ("md5 AAAAAAAAAAAAAAAAAAAAAA==", "sha256", "sha256 AAAA", "sha256 ====", "x", ""):
        answer = tus.patch(upload_id, 0, UPDATE[:HALF], upload_checksum=checksum)
        assert problem(answer) == (422, "malformed_message")
    assert tus.offset(upload_id) == 0


def test_another_version_of_tus_is_refused(tus: TusDevice, assignment_id: str, upload_id: str) -> None:
    for spoken in (None, "0.2.2", "1.0"):
        for answer in (
            tus.begin(assignment_id, UPDATE, tus_resumable=spoken),
            tus.patch(upload_id, 0, UPDATE[:HALF], tus_resumable=spoken),
            tus.send("DELETE", f"/uploads/{upload_id}", tus_resumable=spoken),
        ):
            assert problem(answer) == (412, "invalid_input")
            assert answer.headers["Tus-Version"] == "1.0.0"
        assert tus.head(upload_id, tus_resumable=spoken).status_code == 412
    assert tus.offset(upload_id) == 0


def test_part_of_another_type_is_refused(tus: TusDevice, upload_id: str) -> None:
    answer = tus.patch(upload_id, 0, UPDATE[:HALF], content_type="application/octet-stream")
    assert problem(answer) == (415, "invalid_input")
    assert answer.headers["Tus-Resumable"] == "1.0.0"


def test_upload_that_was_ended_is_gone_with_its_parts(
    tus: TusDevice, upload_id: str, service: Service
) -> None:
    tus.patch(upload_id, 0, UPDATE[:HALF])
    assert len(stored_parts(service)) == 1
    assert tus.send("DELETE", f"/uploads/{upload_id}").status_code == 204
    assert stored_parts(service) == []
    assert problem(tus.patch(upload_id, HALF, UPDATE[HALF:])) == (404, "not_found")
    assert problem(tus.send("DELETE", f"/uploads/{upload_id}")) == (404, "not_found")
    assert tus.head(upload_id).status_code == 404


def test_update_stays_when_its_upload_is_ended(tus: TusDevice, assignment_id: str, upload_id: str) -> None:
    tus.in_parts(upload_id, UPDATE, HALF)
    assert tus.send("DELETE", f"/uploads/{upload_id}").status_code == 204
    assert tus.device.submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"


def test_upload_expires_with_the_lease(
    tus: TusDevice, assignment_id: str, upload_id: str, clock: FakeClock
) -> None:
    tus.patch(upload_id, 0, UPDATE[:HALF])
    clock.advance(100)
    assert problem(tus.patch(upload_id, HALF, UPDATE[HALF:])) == (410, "upload_gone")
    assert tus.head(upload_id).status_code == 410
    another = tus.begin(assignment_id, UPDATE)
    assert problem(another) == (409, "state_conflict")
    assert another.json()["got"] == "state expired: the lease ran out"


def test_upload_of_an_assignment_that_is_over_is_refused_with_the_reason(
    tus: TusDevice, assignment_id: str, upload_id: str
) -> None:
    tus.device.call("POST", f"/assignments/{assignment_id}:fail", {"code": "gone", "message": "away"})
    answer = tus.patch(upload_id, 0, UPDATE[:HALF])
    assert problem(answer) == (409, "state_conflict")
    assert answer.json()["got"] == "state failed: gone: away"


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


def test_hostile_offset_is_refused(tus: TusDevice, upload_id: str) -> None:
    for offset in (None, "-1", "", "0x0", "+0", "00", "1e0", "9" * 16):
        answer = tus.patch(upload_id, 0, UPDATE, upload_offset=offset)
        assert problem(answer) == (422, "malformed_message")


def test_part_beyond_the_promised_length_is_refused(tus: TusDevice, upload_id: str, service: Service) -> None:
    assert problem(tus.patch(upload_id, 0, UPDATE + b"x")) == (413, "body_too_large")
    tus.patch(upload_id, 0, UPDATE[:HALF])
    assert problem(tus.patch(upload_id, HALF, UPDATE[HALF:] + b"x")) == (413, "body_too_large")
    assert tus.offset(upload_id) == HALF
    assert list(service.objects.incoming.iterdir()) == []


def test_part_smaller_than_a_thousandth_is_refused_unless_it_is_the_last(
    tus: TusDevice, assignment_id: str
) -> None:
    promised, least = max_adapter_bytes(SPEC), 3  # 2532 bytes, of which a thousandth is rounded up
    begun = tus.begin(assignment_id, UPDATE, upload_length=str(promised))
    upload_id = begun.headers["Location"].rpartition("/")[2]
    too_small = tus.patch(upload_id, 0, b"x" * (least - 1))
    assert problem(too_small) == (422, "invalid_input")
    assert problem(tus.patch(upload_id, 0, b"")) == (422, "invalid_input")
    assert tus.patch(upload_id, 0, b"x" * least).status_code == 204
    assert tus.patch(upload_id, least, b"x" * (promised - least - 1)).status_code == 204
    # The last byte may come alone; that these bytes are another update than was promised is told then.
    assert problem(tus.patch(upload_id, promised - 1, b"x")) == (422, "digest_mismatch")


def test_update_that_is_refused_tells_why_and_is_dropped(
    tus: TusDevice, assignment_id: str, service: Service
) -> None:
    bad = b"\x80\x04pickle" * 10
    upload_id = tus.begun(assignment_id, bad)
    assert tus.patch(upload_id, 0, bad[:40]).status_code == 204
    assert problem(tus.patch(upload_id, 40, bad[40:])) == (422, "malformed_tensors")
    assert tus.head(upload_id).status_code == 404
    assert stored_parts(service) == kept_updates(service) == []
    assert list(service.objects.incoming.iterdir()) == []
    assert tus.device.upload(assignment_id, make_adapter(2)).is_success


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


def test_devices_cannot_touch_each_others_uploads(
    tus: TusDevice, assignment_id: str, upload_id: str, make_device: Callable[[int], FakeDevice]
) -> None:
    stranger = TusDevice(make_device(2))
    assert problem(stranger.begin(assignment_id, UPDATE)) == (404, "not_found")
    for device, id_ in ((stranger, upload_id), (tus, "unknown")):
        assert problem(device.patch(id_, 0, UPDATE)) == (404, "not_found")
        assert problem(device.send("DELETE", f"/uploads/{id_}")) == (404, "not_found")
        assert device.head(id_).status_code == 404
    assert tus.offset(upload_id) == 0
    assert problem(tus.patch("a%00b", 0, UPDATE)) == (422, "malformed_message")


def test_upload_needs_a_started_assignment(operator: Operator, tus: TusDevice, bundle: str) -> None:
    operator.run(bundle)
    offered = tus.device.offer()["assignment_id"]
    assert problem(tus.begin(offered, UPDATE)) == (409, "state_conflict")


def test_upload_that_nobody_signed_is_refused(tus: TusDevice, upload_id: str) -> None:
    path, headers = f"/device/v1/uploads/{upload_id}", {"Tus-Resumable": "1.0.0"}
    for method in ("PATCH", "DELETE"):
        answer = tus.device.http.request(method, path, headers=headers)
        assert problem(answer) == (401, "authentication_failed")
    assert tus.device.http.head(path, headers=headers).status_code == 401
