"""Files as answers: immutable objects with ETag and ranges."""

from __future__ import annotations

import re

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from aggregator_service.storage.blobs import BlobFolder
from hetlora.errors import NotFound

_RANGE = re.compile(r"bytes=(?:(?P<first>\d{1,19})-(?P<last>\d{0,19})|-(?P<suffix>\d{1,19}))")


def object_response(request: Request, folder: BlobFolder, sha256: str, media_type: str) -> Response:
    """A blob; 304 for a cached one, 206 for one range of it.

    Raises:
        NotFound: no such object.
        HTTPException: 416 for a range outside the object.
    """
    size_bytes = folder.size_bytes(sha256)
    if size_bytes is None:
        raise NotFound("no such object", got=sha256)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    # FileResponse would tell of a bad range in plain text.
    if "range" in request.headers:
        _check_range(request.headers["range"], size_bytes)
    return FileResponse(folder.path(sha256), headers=headers, media_type=media_type)


def _check_range(header: str, size_bytes: int) -> None:
    found = _RANGE.fullmatch(header.strip())
    if found and found["suffix"]:
        satisfiable = int(found["suffix"]) > 0 and size_bytes > 0
    elif found:
        first = int(found["first"])
        satisfiable = first < size_bytes and first <= int(found["last"] or size_bytes)
    else:
        satisfiable = False
    if not satisfiable:
        raise HTTPException(
            416,
            f"range {header[:64]} is not one range within {size_bytes} bytes",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
