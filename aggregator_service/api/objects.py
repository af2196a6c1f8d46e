"""Files as answers: immutable objects with ETag and ranges."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Final

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from aggregator_service.api.errors import problems
from aggregator_service.storage.blobs import Blobs
from hetlora.byte_range import bytes_of_range
from hetlora.errors import NotFound, ServiceFailed


class Download(StreamingResponse):
    """A blob on its way, which holds a place for as long as it is."""

    place: AbstractContextManager[object] = nullcontext()

    def __init__(self, chunks: Generator[bytes, None, None], status: int, headers: dict[str, str]) -> None:
        super().__init__(chunks, status_code=status, headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.place, closing(self._chunks):  # also where the reader is gone before the last
            await super().__call__(scope, receive, send)


def object_responses(media_type: str, schema: dict[str, str]) -> dict[int | str, dict[str, object]]:
    """For OpenAPI: what `object_response` answers."""
    content = {media_type: {"schema": schema}}
    return problems(404, 416) | {
        200: {"description": "The whole object", "content": content},
        206: {"description": "The range that was asked for", "content": content},
        304: {"description": "What the caller has is still right"},
    }


BINARY: Final = object_responses("application/octet-stream", {"type": "string", "format": "binary"})
JSON_OBJECT: Final = object_responses("application/json", {"type": "object"})


def object_response(
    request: Request, folder: Blobs, sha256: str, media_type: str, *, known_bytes: int | None = None
) -> Response:
    """A blob, unchecked but for its size where that is known; 304 for a cached one, 206 for one range of it.

    Raises:
        NotFound: no such object.
        ServiceFailed: it has another size than the service knows of.
        HTTPException: 416 for a range outside the object.
    """
    size_bytes = folder.size_bytes(sha256)
    if size_bytes is None:
        raise NotFound("no such object", got=sha256)
    if known_bytes not in (None, size_bytes):
        raise ServiceFailed("an object of the service is damaged", got=f"{sha256}, {size_bytes} bytes")
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    first, stop, status = 0, size_bytes, 200
    headers["Accept-Ranges"] = "bytes"
    if "range" in request.headers and request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        first, stop = _range(request.headers["range"], size_bytes)
        status = 206
        headers["Content-Range"] = f"bytes {first}-{stop - 1}/{size_bytes}"
    headers["Content-Length"] = str(stop - first)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    chunks = folder.chunks(sha256, first, stop)
    return Download(chunks, status, headers | {"Content-Type": media_type})


def _range(header: str, size_bytes: int) -> tuple[int, int]:
    found = bytes_of_range(header, size_bytes)
    if found is None:
        raise HTTPException(
            416,
            f"range {header[:64]} is not one range within {size_bytes} bytes",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return found
