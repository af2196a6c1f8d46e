from __future__ import annotations

import pytest
from fake_device import FakeDevice
from service_bundle import FILES, make_manifest
from service_server import problem

from hetlora.digest import sha256_of

DATA = FILES["base.bin"]  # 17 bytes
PATH = f"/objects/{sha256_of(DATA)}"


def test_whole_object_may_be_kept_for_ever(device: FakeDevice) -> None:
    answer = device.send("GET", PATH)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["etag"] == f'"{sha256_of(DATA)}"'
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_manifest_is_an_object_like_any_other(device: FakeDevice, bundle: str) -> None:
    assert device.send("GET", f"/objects/{bundle}").content == make_manifest().to_json()


def test_cached_object_is_not_sent_again(device: FakeDevice) -> None:
    answer = device.send("GET", PATH, headers={"If-None-Match": f'"{sha256_of(DATA)}"'})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "content", "told"),
    [
        ("bytes=0-3", DATA[:4], "bytes 0-3/17"),
        ("bytes=5-", DATA[5:], "bytes 5-16/17"),
        ("bytes=-2", DATA[-2:], "bytes 15-16/17"),
        ("bytes=10-99", DATA[10:], "bytes 10-16/17"),
    ],
)
def test_range_of_an_object_is_sent_alone(device: FakeDevice, asked: str, content: bytes, told: str) -> None:
    answer = device.send("GET", PATH, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, content)
    assert answer.headers["content-range"] == told


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=17-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=0-1,3-4",
        "lines=1-2",
        f"bytes={'9' * 5000}-",
        f"bytes=0-{'9' * 5000}",
        f"bytes=-{'9' * 5000}",
    ],
)
def test_range_outside_the_object_is_refused(device: FakeDevice, asked: str) -> None:
    answer = device.send("GET", PATH, headers={"Range": asked})
    assert problem(answer) == (416, "invalid_input")
    assert answer.headers["content-range"] == "bytes */17"


def test_unknown_object_is_not_found(device: FakeDevice) -> None:
    assert problem(device.send("GET", f"/objects/{'0' * 64}")) == (404, "not_found")


def test_name_that_is_no_digest_is_refused(device: FakeDevice) -> None:
    assert problem(device.send("GET", "/objects/..%2fhetlora.sqlite"))[0] in (404, 422)
    assert problem(device.send("GET", "/objects/hetlora.sqlite")) == (422, "malformed_message")
