"""Updates that come in parts, as tus 1.0 has it, from their creation to their end."""

from __future__ import annotations

from collections.abc import Callable

from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_objects import kept_updates, stored_parts
from service_operator import Operator
from service_server import problem
from tus_device import HALF, UPDATE, TusDevice, pair

from aggregator_service.service import Service
from hetlora.digest import sha256_of


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


def test_upload_that_nobody_signed_is_refused(tus: TusDevice, upload_id: str) -> None:
    path, headers = f"/device/v1/uploads/{upload_id}", {"Tus-Resumable": "1.0.0"}
    for method in ("PATCH", "DELETE"):
        answer = tus.device.http.request(method, path, headers=headers)
        assert problem(answer) == (401, "authentication_failed")
    assert tus.device.http.head(path, headers=headers).status_code == 401
