"""Signed requests as bytes, and a connection that carries them: lean, and open to every kind of fault.

httpx hides what a fault needs (where a request is cut, the same bytes twice) and costs a load generator more
than the service that it asks.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hetlora.digest import sha256_of
from hetlora.signature import (
    SignatureParameters,
    content_digest,
    device_id_of,
    signature_base,
    signature_header,
)

ANSWER_SECONDS: Final = 30.0
LONGEST_HEADERS_BYTES: Final = 64 * 1024


class ConnectionBroken(Exception):
    """No whole answer came: the connection could not be made, ended early, or the time ran out."""


@dataclass(frozen=True)
class Key:
    """The key of a simulated device; the same seed and number make the same key."""

    seed: int
    number: int

    @cached_property
    def private(self) -> Ed25519PrivateKey:
        secret = hashlib.sha256(f"device {self.seed}:{self.number}".encode()).digest()
        return Ed25519PrivateKey.from_private_bytes(secret)

    @cached_property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @cached_property
    def device_id(self) -> str:
        return device_id_of(self.public)

    @property
    def public_base64(self) -> str:
        """As messages have it."""
        return base64.b64encode(self.public).decode()


@dataclass(frozen=True, slots=True)
class Request:
    """What a device asks; `path` is below /device/v1, and `headers` are those beside the usual."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def signed(self, key: Key, now: float, claimed: bytes | None = None) -> bytes:
        """The request as it travels, signed now; its digest is of other bytes where some are `claimed`."""
        digest, path = sha256_of(self.body if claimed is None else claimed), f"/device/v1{self.path}"
        parameters = SignatureParameters(int(now), secrets.token_urlsafe(18), key.device_id)
        base = signature_base(parameters, method=self.method, path=path, query="", body_sha256=digest)
        headers = {
            "Host": "service",
            "Content-Type": "application/json",
            "Content-Length": str(len(self.body)),
            "Content-Digest": content_digest(digest),
            "Signature-Input": parameters.header(),
            "Signature": signature_header(key.private.sign(base)),
            **dict(self.headers),
        }
        lines = (f"{name}: {value}" for name, value in headers.items())
        return "\r\n".join((f"{self.method} {path} HTTP/1.1", *lines, "", "")).encode() + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """The stable code of a refusal."""
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return f"status {self.status}"


class Connection:
    """One HTTP/1.1 connection, kept alive, to a port of the loopback address; made when first needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and read its answer.

        Raises:
            ConnectionBroken: see there; the service may have done what it was asked nevertheless.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader = await self.send(request)
                answer = await _read(reader, bodyless=request.startswith(b"HEAD "))
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise ConnectionBroken(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def send(self, data: bytes) -> asyncio.StreamReader:
        """Send bytes, whole requests or not; the reader is where an answer would come."""
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self.port, limit=LONGEST_HEADERS_BYTES
            )
        self._writer.write(data)
        await self._writer.drain()
        return self._reader

    def close(self) -> None:
        """Cut the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


async def _read(reader: asyncio.StreamReader, *, bodyless: bool) -> Answer:
    """One answer; all of the service's that have a body tell its length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(0 if bodyless else int(headers.get("content-length", "0")))
    return Answer(int(head[0].split(" ", 2)[1]), headers, body)
