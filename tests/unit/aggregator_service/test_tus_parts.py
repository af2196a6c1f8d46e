"""The parts of an upload: at their offset, whole, of a size, and nothing else."""

from __future__ import annotations

import base64
import hashlib

import pytest
from service_bundle import SPEC
from service_objects import stored_parts
from service_server import problem
from tus_device import HALF, UPDATE, TusDevice

from aggregator_service.service import Service
from hetlora.tensors import max_adapter_bytes


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


def test_part_of_another_type_is_refused(tus: TusDevice, upload_id: str) -> None:
    answer = tus.patch(upload_id, 0, UPDATE[:HALF], content_type="application/octet-stream")
    assert problem(answer) == (415, "invalid_input")
    assert answer.headers["Tus-Resumable"] == "1.0.0"


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
