"""Updates that come to a fake service in parts (tus 1.0): begun, or gone on with, and appended to."""

from __future__ import annotations

from datetime import datetime
from email.utils import format_datetime

from hetlora.digest import sha256_of
from hetlora.errors import ChecksumMismatch, MalformedMessage, OffsetMismatch, UploadGone
from hetlora.testing.loopback import Reply, Request
from hetlora.tus import VERSION, parse_checksum, parse_metadata


class PartTaker:
    """What is in of each update, by the digest that was promised."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytes] = {}
        self._promised_bytes: dict[str, int] = {}
        self._expires: dict[str, str] = {}

    def begin(self, request: Request, expires_at: datetime) -> Reply:
        """Say how much of an update is in, and where its next part goes."""
        sha256 = parse_metadata(_header(request, "upload-metadata"))
        self._promised_bytes[sha256] = _number(request, "upload-length")
        self._expires[sha256] = format_datetime(expires_at, usegmt=True)
        self.uploads.setdefault(sha256, b"")
        return Reply(201, headers={"Location": f"/device/v1/uploads/{sha256}", **self._told(sha256)})

    def take(self, request: Request, sha256: str) -> Reply:
        """Append a part."""
        if sha256 not in self.uploads:
            raise UploadGone("no such upload is open", got=sha256)
        offset, there = _number(request, "upload-offset"), self.uploads[sha256]
        if offset != len(there):
            raise OffsetMismatch("the part begins elsewhere", got=offset, expected=len(there))
        if "upload-checksum" in request.headers:
            algorithm, promised = parse_checksum(request.headers["upload-checksum"])
            if algorithm == "sha256" and promised != sha256_of(request.body):
                raise ChecksumMismatch("the part does not match its Upload-Checksum")
        self.uploads[sha256] = there + request.body
        return Reply(204, headers=self._told(sha256))

    def _told(self, sha256: str) -> dict[str, str]:
        return {"Upload-Offset": str(len(self.uploads[sha256])), "Upload-Expires": self._expires[sha256]}

    def completed(self, sha256: str) -> bytes | None:
        """An update of which all parts are in."""
        data = self.uploads.get(sha256, b"")
        return data if len(data) == self._promised_bytes.get(sha256) else None


def _number(request: Request, name: str) -> int:
    told = _header(request, name)
    if not (told.isascii() and told.isdigit()):
        raise MalformedMessage("request is none of tus", got=f"{name}: {told}", expected="a number of bytes")
    return int(told)


def _header(request: Request, name: str) -> str:
    if request.headers.get("tus-resumable") != VERSION or name not in request.headers:
        raise MalformedMessage("request is none of tus", expected=f"Tus-Resumable {VERSION}, and {name}")
    return request.headers[name]
