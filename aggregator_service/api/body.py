"""Request bodies: size before read, digest while reading."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message

from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.incoming import IncomingBlob
from hetlora.digest import verify_digest
from hetlora.errors import BodyTooLarge, BodyTooSlow
from hetlora.signature import parse_content_digest

# Below what any line brings; without it a byte now and then would hold a body, and its file, for ever.
LEAST_BYTES_PER_SECOND: Final = 1024
# For OpenAPI: a body that a handler streams to disk itself.
BINARY_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def claimed_sha256(request: Request) -> str | None:
    """The SHA-256 that `Content-Digest` (RFC 9530) promises, in hexadecimal.

    Raises:
        MalformedMessage: the header has another form than one sha-256 value.
    """
    header = request.headers.get("content-digest")
    return None if header is None else parse_content_digest(header)


async def bounded_chunks(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces, checked at the end against `Content-Digest` where the request carries one.

    Raises:
        HTTPException: 415, as it is compressed: what it holds could be a thousand times as much.
        BodyTooLarge: by its announced length, before a byte is read, or by count while reading.
        BodyTooSlow: see `_chunks_in_time`.
        DigestMismatch: the body is not what the header promises.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "bodies come without a content encoding", headers={"Connection": "close"})
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(f"{announced} bytes announced", limit_bytes)
    claimed = claimed_sha256(request)
    digest, size_bytes = hashlib.sha256(), 0
    async for chunk in _chunks_in_time(request):
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise _too_large(f"more than {size_bytes - len(chunk)} bytes", limit_bytes)
        digest.update(chunk)
        yield chunk
    if claimed is not None:
        verify_digest("body of the request", got=digest.hexdigest(), expected=claimed)


async def _chunks_in_time(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces, as long as they keep coming.

    Raises:
        BodyTooSlow: nothing came for `body_timeout_seconds`, or, that long after the beginning, fewer than
            `LEAST_BYTES_PER_SECOND` on average.
    """
    patience_seconds: float = request.app.state.service.settings.body_timeout_seconds
    clock, chunks = asyncio.get_running_loop().time, aiter(request.stream())
    began_at, size_bytes = clock(), 0
    while True:
        crept_until = began_at + patience_seconds + size_bytes / LEAST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout_at(min(clock() + patience_seconds, crept_until)):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise BodyTooSlow(
                "the body does not come on",
                got=f"{size_bytes} bytes in {clock() - began_at:.0f} s",
                expected=f"a byte in {patience_seconds:g} s, then {LEAST_BYTES_PER_SECOND} bytes a second",
            ) from error
        if chunk is None:
            return
        size_bytes += len(chunk)
        yield chunk


def _too_large(got: str, limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge("body is too large", got=got, expected=f"up to {limit_bytes} bytes")


async def without_body(request: Request) -> None:
    """For routes that take none: read past, it would be taken for something that the service keeps.

    Raises:
        BodyTooLarge, DigestMismatch: see `bounded_chunks`.
    """
    async for _ in bounded_chunks(request, 0):
        pass


async def with_bounded_body(request: Request, limit_bytes: int) -> Request:
    """The same request with its body read under `bounded_chunks`, for the framework to parse."""
    body = b"".join([chunk async for chunk in bounded_chunks(request, limit_bytes)])

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, replay)


@asynccontextmanager
async def received_blob(request: Request, folder: Blobs, limit_bytes: int) -> AsyncIterator[IncomingBlob]:
    """The body streamed to a temporary file under `bounded_chunks`; removed at the end unless kept."""
    with folder.receive() as blob:
        async for chunk in bounded_chunks(request, limit_bytes):
            blob.write(chunk)
        yield blob
