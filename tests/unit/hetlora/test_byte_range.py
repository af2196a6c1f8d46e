from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetlora.byte_range import bytes_of_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        (" bytes=9-9 ", (9, 10)),
    ],
)
def test_range_within_a_file_is_its_first_byte_and_the_one_after_its_last(
    header: str, expected: tuple[int, int]
) -> None:
    assert bytes_of_range(header, 10) == expected


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=5-3", "bytes=-0", "bytes=0-1,3-4", "bytes=", "bytes=-", "lines=0-1", "0-1"]
)
def test_what_is_not_one_range_within_the_file_is_none(header: str) -> None:
    assert bytes_of_range(header, 10) is None


@given(st.integers(0, 10**20), st.integers(0, 10**20), st.integers(0, 10**12))
def test_range_is_never_empty_and_never_beyond_the_file(first: int, last: int, size_bytes: int) -> None:
    found = bytes_of_range(f"bytes={first}-{last}", size_bytes)
    if found is not None:
        assert 0 <= found[0] < found[1] <= size_bytes
        assert found == (first, min(last + 1, size_bytes))
