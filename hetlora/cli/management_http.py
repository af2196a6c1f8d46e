"""HTTP of `/management/v1`: messages in and out, whatever the verb."""

from __future__ import annotations

import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from hetlora.errors import HetloraError, ServiceUnreachable, SettingsError
from hetlora.messages.common import Answer, Item, Page, error_of_answer, parse_answer

# An answer that was lost on its way is asked for again, under the same idempotency key.
CREATE_TRIES: Final = 3
RETRY_SECONDS: Final = 0.5
TIMEOUT_SECONDS: Final = 60.0
PIECE_BYTES: Final = 1 << 18
_JSON: Final = {"Content-Type": "application/json"}
# How many bytes went over the line, and how many will, where that is known.
Moved = Callable[[int, int | None], None]


def unwatched(done_bytes: int, total_bytes: int | None) -> None:
    """Nobody looks on."""


def service_url(url: str) -> str:
    """An address of a service, as it was given.

    Raises:
        SettingsError: none that can be asked, or one with a user or a password, which stay untold.
    """
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # which the look-up of a name fails at otherwise
    except (httpx.InvalidURL, ValueError) as error:
        raise _no_address(url) from error
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) not in range(65536):
        raise _no_address(url)
    if parsed.userinfo:
        raise SettingsError(
            "address of the service with a user or password", expected="none: operators come with a token"
        )
    return url


def _no_address(url: str) -> SettingsError:
    got = None if "@" in url else url  # before an @ may be a password
    return SettingsError("address of the service", got=got, expected="http:// or https:// and a host")


def segment(name: str) -> str:
    """A name as one segment of a path, whatever stands in it."""
    if not name:
        raise SettingsError("a name is empty", expected="the id of a run, bundle or adapter version")
    return quote(name, safe="")


class ManagementHttp:
    """Requests with an operator's token, and their answers as messages.

    Every method raises the error that the service's problem document tells of, or ServiceUnreachable.

    Args:
        verify: whom to trust to be the service, as `trust.trusted` gives it.
        timeout_seconds: how long the service may be silent.

    Raises:
        SettingsError: an address or token that no request can carry.
    """

    def __init__(
        self, url: str, token: str, verify: ssl.SSLContext | bool, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        if not re.fullmatch("[!-~]+", token):
            raise SettingsError("operator token", expected="printable ASCII without blanks")
        self._client = httpx.Client(
            base_url=service_url(url).rstrip("/") + "/management/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_seconds),
            verify=verify,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, kind: type[Answer]) -> Answer:
        """Read one message."""
        return self._parse(self._send("GET", path), kind)

    def content(self, path: str, moved: Moved = unwatched) -> bytes:
        """Read bytes; `moved` is told as they come."""
        data = bytearray()
        try:
            with self._client.stream("GET", path) as answer:
                if not answer.is_success:
                    raise self._refusal(answer.status_code, answer.read())
                length = answer.headers.get("content-length", "")
                for piece in answer.iter_bytes(PIECE_BYTES):
                    data += piece
                    moved(len(data), int(length) if length.isdigit() else None)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return bytes(data)

    def post(self, path: str, message: BaseModel | None, kind: type[Answer]) -> Answer:
        """Ask for something to be done, with a message or without."""
        if message is None:
            return self._parse(self._send("POST", path), kind)
        return self._parse(self._send("POST", path, content=_body(message), headers=_JSON), kind)

    def do(self, path: str) -> None:
        """Ask for something to be done that has no answer but that it is."""
        self._send("POST", path)

    def create(self, path: str, message: BaseModel, kind: type[Answer]) -> Answer:
        """Ask for something to be made, once, however often the answer is lost."""
        headers = _JSON | {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(CREATE_TRIES - 1):
            try:
                return self._parse(self._send("POST", path, content=_body(message), headers=headers), kind)
            except ServiceUnreachable as error:
                # Nobody listens: nothing was made, and asking again is the operator's to decide.
                if isinstance(error.__cause__, httpx.ConnectError):
                    raise
                time.sleep(RETRY_SECONDS)
        return self._parse(self._send("POST", path, content=_body(message), headers=headers), kind)

    def page(self, path: str, item: type[Item], query: Mapping[str, str] | None = None) -> Page[Item]:
        """One page of a listing."""
        return self._parse(self._send("GET", path, params=dict(query or {})), Page[item])  # type: ignore[valid-type]

    def pages(self, path: str, item: type[Item], query: Mapping[str, str] | None = None) -> Iterator[Item]:
        """All items of a listing, read as they are taken."""
        cursor: str | None = None
        while True:
            parameters = dict(query or {}) | ({"cursor": cursor} if cursor else {})
            page = self.page(path, item, parameters)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def has(self, path: str) -> bool:
        """Whether something is there. A HEAD has no body to say what is wrong: anything wrong is a no."""
        return self._ask("HEAD", path).is_success

    def put(self, path: str, body: BinaryIO, size_bytes: int, moved: Moved = unwatched) -> None:
        """Send a file of this size; `moved` is told as it goes."""

        def pieces() -> Iterator[bytes]:
            done_bytes = 0
            while piece := body.read(PIECE_BYTES):
                yield piece
                done_bytes += len(piece)
                moved(done_bytes, size_bytes)

        self._send("PUT", path, content=pieces(), headers={"Content-Length": str(size_bytes)})

    def _send(self, method: str, path: str, **what: Any) -> httpx.Response:
        answer = self._ask(method, path, **what)
        if not answer.is_success:
            raise self._refusal(answer.status_code, answer.content)
        return answer

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **what)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _refusal(self, status: int, body: bytes) -> HetloraError:
        return error_of_answer(status, body, service_url=str(self._client.base_url))

    def _unreachable(self, error: httpx.HTTPError) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"no answer from {self._client.base_url}", got=error, expected="a running `hetlora serve`"
        )

    def _parse(self, answer: httpx.Response, kind: type[Answer]) -> Answer:
        return parse_answer(kind, answer.content, service_url=str(self._client.base_url))


def _body(message: BaseModel) -> bytes:
    return message.model_dump_json().encode()
