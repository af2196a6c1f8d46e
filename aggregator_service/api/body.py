"""Request bodies: size before read, digest while reading."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.types import Message

from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.incoming import IncomingBlob
from hetlora.digest import verify_digest
from hetlora.errors import BodyTooLarge
from hetlora.signature import parse_content_digest

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
        BodyTooLarge: by its announced length, before a byte is read, or by count while reading.
        DigestMismatch: the body is not what the header promises.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(f"{announced} bytes announced", limit_bytes)
    claimed = claimed_sha256(request)
    digest, size_bytes = hashlib.sha256(), 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise _too_large(f"more than {size_bytes - len(chunk)} bytes", limit_bytes)
        digest.update(chunk)
        yield chunk
    if claimed is not None:
        verify_digest("body of the request", got=digest.hexdigest(), expected=claimed)


def _too_large(got: str, limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge("body is too large", got=got, expected=f"up to {limit_bytes} bytes")


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
