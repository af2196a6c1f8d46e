"""Objects of a fake service as answers: whole, or one range."""

from __future__ import annotations

from pathlib import Path

from hetlora.byte_range import bytes_of_range
from hetlora.errors import InputError, NotFound
from hetlora.testing.loopback import Reply, problem_reply


def object_reply(sha256: str, stored: bytes | Path | None, wanted: str) -> Reply:
    """What the request for an object is answered; `wanted` is its header `Range`, or empty.

    Raises:
        NotFound: there is none.
    """
    if stored is None:
        raise NotFound("no such object", got=sha256)
    data = stored.read_bytes() if isinstance(stored, Path) else stored
    headers = {"ETag": f'"{sha256}"'}
    if not wanted:
        return Reply(200, data, "application/octet-stream", headers)
    found = bytes_of_range(wanted, len(data))
    if found is None:
        refusal = InputError("not one range within the object", got=wanted)
        return problem_reply(refusal, {"Content-Range": f"bytes */{len(data)}"}, 416)
    first, stop = found
    headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
    return Reply(206, data[first:stop], "application/octet-stream", headers)
