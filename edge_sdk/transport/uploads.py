"""Updates to the service: a small one whole, a larger one in parts, so that it goes on where it was cut."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from edge_sdk.defaults import DEFAULT_PART_BYTES
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from hetlora.digest import sha256_of
from hetlora.errors import NotFound, OffsetMismatch, ServiceUnreachable, SettingsError, UploadGone
from hetlora.messages.common import no_service
from hetlora.tus import PART_TYPE, VERSION, sha256_pair, smallest_part_bytes

logger = logging.getLogger(__name__)

# Refusals of a part, with no part taken between: whatever the service says then, it does not hold together.
MOST_REFUSALS: Final = 3
_LOCATION: Final = re.compile(r".*/device/v1/uploads/(?P<id>[A-Za-z0-9_-]{1,64})")
_OFFSET: Final = re.compile(r"[0-9]{1,16}")


class Uploads:
    """Brings updates to the service, in parts of `part_bytes` where they are larger.

    Raises:
        SettingsError: parts of no bytes.
    """

    def __init__(self, transport: Transport, *, part_bytes: int = DEFAULT_PART_BYTES) -> None:
        if part_bytes < 1:
            raise SettingsError("upload_part_bytes", got=part_bytes, expected="at least 1")
        self._transport = transport
        self._part_bytes = part_bytes

    def deliver(
        self, assignment_id: str, update: bytes, may_go_on: Callable[[], object] = lambda: None
    ) -> None:
        """Bring an update to the service, however often the line is cut on the way.

        The service knows by the digest what it has of an update. So it is asked wherever that is in doubt,
        also by a process that was started after the last one was killed in the middle. `may_go_on` is called
        before each part; what it raises ends the upload, and a later one goes on with it.

        Raises:
            HetloraError: see `Transport.exchange`, and what `may_go_on` raises.
        """
        if len(update) <= self._part_bytes:
            may_go_on()
            DeviceService(self._transport).upload(assignment_id, update)
            return
        parts = _Parts(self._transport, assignment_id, update, self._part_bytes)
        furthest = refusals = 0
        while parts.there_bytes < len(update):
            may_go_on()
            try:
                # Each part that arrives starts the count of tries anew, as with downloads.
                self._transport.retrying(parts.advance)
            except (OffsetMismatch, UploadGone, NotFound) as error:
                refusals += 1
                logger.info("assignment=%s event=part_refused error=%s", assignment_id, error)
                if refusals >= MOST_REFUSALS:
                    raise
            if parts.there_bytes > furthest:
                furthest, refusals = parts.there_bytes, 0


@dataclass(slots=True)
class _Parts:
    """One update on its way; `path` is None where it is in doubt what the service has of it."""

    transport: Transport
    assignment_id: str
    update: bytes
    part_bytes: int
    there_bytes: int = 0
    path: str | None = None

    def advance(self) -> None:
        """One try at the next part; first, in doubt, one at finding out which that is."""
        if self.path is None:
            before = self.there_bytes
            self.path = self._begin()
            if self.there_bytes > before:
                return
        path, self.path = self.path, None
        size_bytes = max(self.part_bytes, smallest_part_bytes(len(self.update)))
        part = self.update[self.there_bytes : self.there_bytes + size_bytes]
        headers = {
            "Content-Type": PART_TYPE,
            "Upload-Offset": str(self.there_bytes),
            "Upload-Checksum": sha256_pair(sha256_of(part)),
        }
        before = self.there_bytes
        answer = self._send("PATCH", path, part, headers)
        if self.there_bytes <= before:
            raise self._no_service(answer)
        self.path = path

    def _begin(self) -> str:
        headers = {
            "Upload-Length": str(len(self.update)),
            "Upload-Metadata": sha256_pair(sha256_of(self.update)),
        }
        answer = self._send("POST", f"/device/v1/assignments/{self.assignment_id}/uploads", b"", headers)
        found = _LOCATION.fullmatch(answer.get("Location", ""))
        if found is None:
            raise self._no_service(answer)
        return f"/device/v1/uploads/{found['id']}"

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> httpx.Headers:
        answer = self.transport.ask(method, path, body=body, headers=headers | {"Tus-Resumable": VERSION})
        offset = _OFFSET.fullmatch(answer.get("Upload-Offset", ""))
        if offset is None or int(offset[0]) > len(self.update):
            raise self._no_service(answer)
        self.there_bytes = int(offset[0])
        return answer

    def _no_service(self, answer: httpx.Headers) -> ServiceUnreachable:
        return no_service(
            {name: answer.get(name) for name in ("Location", "Upload-Offset")},
            expected=f"where an upload stands, from {self.transport.service_url}",
        )
