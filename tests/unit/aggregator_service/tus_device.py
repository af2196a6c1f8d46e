"""A device that brings updates in parts, as tus 1.0 says."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import httpx
from fake_device import FakeDevice
from service_bundle import make_adapter

from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes

TUS = {"Tus-Resumable": "1.0.0"}
PART = {"Content-Type": "application/offset+octet-stream"}
UPDATE = adapter_to_bytes(make_adapter(2))
HALF = len(UPDATE) // 2


def pair(sha256: str) -> str:
    return f"sha256 {base64.b64encode(bytes.fromhex(sha256)).decode()}"


@dataclass
class TusDevice:
    """The tus requests of a device; `headers` replace the usual ones, and one of None leaves it out."""

    device: FakeDevice

    def send(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> httpx.Response:
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        chosen = {name: value for name, value in (TUS | named).items() if value is not None}
        return self.device.send(method, path, content=body, headers=chosen)

    def begin(self, assignment_id: str, data: bytes, **headers: str | None) -> httpx.Response:
        promised = {"upload_length": str(len(data)), "upload_metadata": pair(sha256_of(data))}
        return self.send("POST", f"/assignments/{assignment_id}/uploads", **(promised | headers))

    def begun(self, assignment_id: str, data: bytes) -> str:
        """The id of an upload of these bytes."""
        answer = self.begin(assignment_id, data)
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"].removeprefix("/device/v1/uploads/")

    def head(self, upload_id: str, **headers: str | None) -> httpx.Response:
        return self.send("HEAD", f"/uploads/{upload_id}", **headers)

    def offset(self, upload_id: str) -> int:
        answer = self.head(upload_id)
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["Upload-Offset"])

    def patch(self, upload_id: str, offset: int, part: bytes, **headers: str | None) -> httpx.Response:
        usual: dict[str, Any] = {"content_type": PART["Content-Type"], "upload_offset": str(offset)}
        return self.send("PATCH", f"/uploads/{upload_id}", part, **(usual | headers))

    def in_parts(self, upload_id: str, data: bytes, part_bytes: int) -> list[httpx.Response]:
        """The answers to all parts from where the upload stands."""
        return [
            self.patch(upload_id, first, data[first : first + part_bytes])
            for first in range(self.offset(upload_id), len(data), part_bytes)
        ]
