"""The wire format of protocol buffers, as far as checking a file before native code reads it needs.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
DELIMITED: Final = 2  # bytes, a string or a message of its own
_FIXED_SIZES: Final = {1: 8, 5: 4}
_MAX_TAG: Final = 2**32 - 1  # C++ cuts off what lies above, and would read another field than we do
_MAX_VARINT_BITS: Final = 70

# Number of the field and its wire type; of a VARINT its value and 0, of a DELIMITED where it begins and ends.
Field = tuple[int, int, int, int]


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies in `data[start:end]`; those of a fixed size are passed over.

    Raises:
        ValueError: it is no such message, or holds groups, which no one writes any more.
    """
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_TAG >> 3:
            raise ValueError(f"field number {number} at byte {at}")
        if wire_type == VARINT:
            value, at = _varint(data, at, end)
            yield number, VARINT, value, 0
        elif wire_type == DELIMITED:
            length, at = _varint(data, at, end)
            if length > end - at:
                raise ValueError(f"field of {length} bytes in a message with {end - at} left at byte {at}")
            yield number, DELIMITED, at, at + length
            at += length
        elif wire_type in _FIXED_SIZES and _FIXED_SIZES[wire_type] <= end - at:
            at += _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number that begins at a byte, and where it ends."""
    value = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number without an end at byte {at}")
