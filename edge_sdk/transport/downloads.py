"""Objects from the service to disk: resumed where they were cut, verified before they get their name."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from edge_sdk.folder import remove
from edge_sdk.transport.transport import Transport
from hetlora.digest import sha256_of_file, verify_digest
from hetlora.errors import BodyTooLarge, DigestMismatch, InputError, RefusedError
from hetlora.messages.common import ObjectRef, no_service

logger = logging.getLogger(__name__)

# A shorter stretch tells how long the way is, and not how wide.
RATE_BYTES: Final = 256 * 1024
# How often it is asked, while an object comes, whether it still may.
CHECK_SECONDS: Final = 5.0
_BINARY: Final = "application/octet-stream"


class Downloads:
    """Fetches objects by digest; half of one left in `folder` is continued, also by a later process."""

    def __init__(
        self,
        transport: Transport,
        folder: Path,
        on_file: Callable[[str, int], None] = lambda name, size: None,
        *,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._transport = transport
        self._folder = folder
        self._on_file = on_file
        # All bytes of objects that crossed the network, those of failed tries too.
        self.received_bytes = 0
        # Of the newest stretch that was long enough to tell; None before one.
        self.bytes_per_second: float | None = None
        self._timer = timer
        self._check: Callable[[], object] = _allowed

    @contextmanager
    def only_while(self, check: Callable[[], object]) -> Iterator[None]:
        """Call `check` before each request meanwhile, and every few seconds while an object comes.

        What it raises ends a download; a later one goes on.
        """
        self._check = check
        try:
            yield
        finally:
            self._check = _allowed

    def fetch(self, ref: ObjectRef, target: Path, *, name: str) -> None:
        """Bring an object to `target`; the file appears there whole and verified, or not at all.

        `name` is what people call the object, for errors and events.

        Raises:
            DigestMismatch: the service sent other bytes than promised, twice.
            BodyTooLarge: it sent more bytes than promised.
            ServiceUnreachable: something else answers; what had arrived stays.
            HetloraError: see `Transport.exchange`, and what `only_while` was given.
        """
        part = self._part(ref)
        try:
            self._fill(ref, part, name)
            if sha256_of_file(part) != ref.sha256:
                # The first bytes may be a damaged leftover: only a whole fresh copy proves the service wrong.
                logger.warning("object=%s sha256=%s event=fetched_again", name, ref.sha256)
                part.unlink()
                self._fill(ref, part, name)
                verify_digest(name, got=sha256_of_file(part), expected=ref.sha256)
        except (InputError, RefusedError):
            part.unlink(missing_ok=True)
            raise
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
        self._on_file(name, ref.size_bytes)

    def arrived_bytes(self, ref: ObjectRef) -> int:
        """How much of an object is here from a download that was interrupted."""
        part = self._part(ref)
        return min(part.stat().st_size, ref.size_bytes) if part.is_file() else 0

    def drop_leftovers(self, but: Collection[ObjectRef] = ()) -> None:
        """Remove what is left of interrupted downloads, but those of objects that are to be continued."""
        for path in self._leftovers(but):
            remove(path)

    def leftover_bytes(self, but: Collection[ObjectRef] = ()) -> int:
        """What `drop_leftovers` would free."""
        return sum(path.stat().st_size for path in self._leftovers(but) if path.is_file())

    def _leftovers(self, but: Collection[ObjectRef]) -> list[Path]:
        continued = {self._part(ref) for ref in but}
        return [path for path in self._folder.iterdir() if path not in continued]

    def _part(self, ref: ObjectRef) -> Path:
        return self._folder / f"{ref.sha256}.part"

    def _fill(self, ref: ObjectRef, part: Path, name: str) -> None:
        part.touch()
        if part.stat().st_size > ref.size_bytes:
            part.unlink()
            part.touch()
        while (size := part.stat().st_size) < ref.size_bytes:
            try:
                # Each stretch that brought bytes starts the count of tries anew: a long download over a bad
                # line is not given up while it moves.
                self._transport.retrying(lambda: self._receive(ref, part, name))
            except InputError as error:
                if size and type(error) is InputError:  # 416: there is no such range
                    raise DigestMismatch(
                        f"{name} is shorter than promised",
                        got=f"{size} bytes",
                        expected=f"{ref.size_bytes} bytes",
                    ) from error
                raise

    def _receive(self, ref: ObjectRef, part: Path, name: str) -> None:
        """One request for what is missing; returns early if the line is cut after progress."""
        self._check()  # each goes by the network of its moment
        had = part.stat().st_size
        headers = {"Range": f"bytes={had}-"} if had else None
        with self._transport.open("GET", f"/device/v1/objects/{ref.sha256}", headers=headers) as response:
            if not _is_of_object(response, ref, had):
                told = ("Content-Type", "Content-Length", "Content-Range", "ETag")
                raise no_service(
                    {header: response.headers.get(header) for header in told},
                    expected=f"{name} from {self._transport.service_url}",
                )
            resumed = response.status_code == 206
            try:
                with part.open("ab" if resumed else "wb") as file:
                    self._copy(response, file.write, room_bytes=ref.size_bytes - file.tell(), name=name)
            except httpx.TransportError:
                if part.stat().st_size <= had:
                    raise
                return
        # What stands on the way may end an answer in good order, as if that were all.
        if part.stat().st_size <= had:
            raise httpx.RemoteProtocolError(f"{name} ended after {part.stat().st_size} bytes")

    def _copy(
        self, response: httpx.Response, write: Callable[[bytes], int], *, room_bytes: int, name: str
    ) -> None:
        had_bytes, started = self.received_bytes, self._timer()
        now = checked = started
        # As the pieces come: gathering them to a size would lose what was gathered when the line is cut.
        for piece in response.iter_raw():
            self.received_bytes += len(piece)
            room_bytes -= len(piece)
            if room_bytes < 0:
                raise BodyTooLarge(f"{name} is longer than promised", got="more bytes")
            write(piece)
            now = self._timer()
            if now - checked >= CHECK_SECONDS:
                self._check()
                checked = now
        self._note_rate(self.received_bytes - had_bytes, now - started)

    def _note_rate(self, size: int, seconds: float) -> None:
        if size >= RATE_BYTES and seconds > 0:
            self.bytes_per_second = size / seconds


def _allowed() -> None:
    pass


def _is_of_object(response: httpx.Response, ref: ObjectRef, had: int) -> bool:
    """Whether a success is about the object, seen by its head alone: the page of a captive portal is none.

    The less is known of it the less it may cost: what is there already is given up for a whole one only.
    """
    told: Mapping[str, str] = response.headers
    if response.status_code == 206:
        return told.get("Content-Range") == f"bytes {had}-{ref.size_bytes - 1}/{ref.size_bytes}"
    if "ETag" in told:
        return told["ETag"] == f'"{ref.sha256}"'
    is_binary = told.get("Content-Type", _BINARY) == _BINARY
    length = told.get("Content-Length", "" if had else str(ref.size_bytes))
    return is_binary and length == str(ref.size_bytes)
