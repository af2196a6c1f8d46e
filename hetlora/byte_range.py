"""One range of bytes of a file, as the header `Range` asks for it (RFC 9110, section 14.2)."""

from __future__ import annotations

import re
from typing import Final

_RANGE: Final = re.compile(r"bytes=(?:(?P<first>\d{1,19})-(?P<last>\d{0,19})|-(?P<suffix>\d{1,19}))")


def bytes_of_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """The first byte of a range, and the one after its last; None unless it is one range within the file."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        return None
    if found["suffix"]:
        first, stop = max(0, size_bytes - int(found["suffix"])), size_bytes
    else:
        first, stop = int(found["first"]), min(int(found["last"] or size_bytes) + 1, size_bytes)
    return (first, stop) if first < stop else None
