"""Objects of the fake service, as a service answers them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hetlora.errors import NotFound
from hetlora.testing.objects import object_reply


@pytest.mark.parametrize(
    ("wanted", "data", "told"),
    [
        ("bytes=2-3", b"cd", "bytes 2-3/6"),
        ("bytes=4-", b"ef", "bytes 4-5/6"),
        ("bytes=-1", b"f", "bytes 5-5/6"),
    ],
)
def test_range_of_an_object_has_both_of_its_bounds(wanted: str, data: bytes, told: str) -> None:
    reply = object_reply("digest", b"abcdef", wanted)
    assert (reply.status, reply.body, reply.headers["Content-Range"]) == (206, data, told)


def test_range_beyond_an_object_is_refused_and_told_its_size() -> None:
    reply = object_reply("digest", b"abcdef", "bytes=6-")
    assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */6")
    assert json.loads(reply.body)["status"] == 416


def test_object_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"abcdef")
    assert object_reply("digest", tmp_path / "object", "").body == b"abcdef"


def test_object_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        object_reply("digest", None, "")
