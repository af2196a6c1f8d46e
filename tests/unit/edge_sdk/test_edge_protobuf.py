from __future__ import annotations

import pytest

from edge_sdk.runtimes.protobuf import DELIMITED, VARINT, fields


def _read(data: str) -> list[tuple[int, int, int, int]]:
    return list(fields(bytes.fromhex(data), 0, len(bytes.fromhex(data))))


def test_numbers_have_their_value_and_delimited_fields_their_place() -> None:
    # field 1 varint 300; field 2 of two bytes, which begin at 5; field 16 varint 1
    assert _read("08 ac02  12 02 6162  8001 01") == [
        (1, VARINT, 300, 0),
        (2, DELIMITED, 5, 7),
        (16, VARINT, 1, 0),
    ]


def test_fields_of_a_fixed_size_are_passed_over() -> None:
    assert _read("0d 00000000  11 0000000000000000  18 05") == [(3, VARINT, 5, 0)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("0a 03 6162", id="longer than what is left"),
        pytest.param("0a", id="no length"),
        pytest.param("08", id="no value"),
        pytest.param("08 80", id="a number without an end"),
        pytest.param("08 " + "ff" * 10 + "01", id="a number of eleven bytes"),
        pytest.param("0d 000000", id="three bytes of four"),
        pytest.param("0b 0c", id="a group"),
        pytest.param("0f", id="wire type 7"),
        pytest.param("00 01", id="field 0"),
        # 2^32 + 0x0a: a parser of 32 bits would find field 1 here.
        pytest.param("8a80808010 01 61", id="a tag beyond 32 bits"),
    ],
)
def test_what_is_no_message_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="byte"):
        _read(data)
