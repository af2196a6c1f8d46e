"""Signed HTTP with retries: bytes in, bytes out, every fault a typed error."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

import httpx

from edge_sdk.identity.identity import Identity
from edge_sdk.transport.answers import read_answer, told_error
from edge_sdk.transport.retries import ErrorAnswer, asked_seconds, retrying
from edge_sdk.transport.way import STRAIGHT, Way
from hetlora import __version__
from hetlora.digest import sha256_of
from hetlora.errors import ServiceUnreachable, SettingsError, Stopped
from hetlora.signature import SignatureParameters, content_digest, signature_base, signature_header

Result = TypeVar("Result")

# The last update of a round may have the service aggregate before it answers.
TIMEOUT: Final = httpx.Timeout(60, connect=10)


class Transport:
    """Requests to one service, signed as one device.

    Each try is signed anew, with its own time and nonce, as the service refuses a nonce that it has seen.

    Args:
        service_url: where the service answers, http or https.
        identity: the key that signs.
        way: whom to take for the service, and by which proxy to go there.
        clock: Unix seconds, for the signatures.
        jitter: spreads the waits between tries.
        sleep: waits between tries; None is the system's.
        timer: seconds, for how long an answer may take.

    Raises:
        SettingsError, DependencyMissing: see `checked_address` and `Way.client`.
    """

    def __init__(
        self,
        service_url: str,
        identity: Identity,
        way: Way = STRAIGHT,
        *,
        clock: Callable[[], float] = time.time,
        jitter: random.Random | None = None,
        sleep: Callable[[float], None] | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service_url = checked_address(service_url)
        self.identity = identity  # another from the next request on, when it is set
        self._jitter = jitter or random.Random()
        self._sleep = sleep
        self._timer = timer
        self._stop: threading.Event | None = None
        self._client = way.client(
            service_url,
            auth=_DeviceSignature(self, clock),
            # Digests and ranges are over the bytes as they travel.
            headers={"Accept-Encoding": "identity", "User-Agent": f"hetlora-edge-sdk/{__version__}"},
            timeout=TIMEOUT,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def ended_by(self, stop: threading.Event | None) -> Iterator[None]:
        """Have `stop` end waits between two tries and answers that drip meanwhile, with Stopped.

        A request that is under way is not ended otherwise, nor is the first try of another kept back. None
        changes nothing.
        """
        before = self._sleep
        if stop is not None:
            self._sleep, self._stop = partial(_wait, stop), stop
        try:
            yield
        finally:
            self._sleep, self._stop = before, None

    def exchange(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send a request until it is answered, and return the body of the answer.

        Raises:
            ServiceUnreachable: no answer after all tries, or one that no hetlora service gives (see
                `read_answer`).
            HetloraError: whichever error the service's problem document tells of.
        """

        def once() -> bytes:
            with self.open(method, path, body=body, headers=headers) as response:
                return self._read(response)

        return self.retrying(once)

    def retrying(self, action: Callable[[], Result]) -> Result:
        """Call `action` until it succeeds: again after faults of the line, 408, 429, 5xx, with full jitter.

        Again also after `replayed_request`: something on the way, such as a proxy whose connection broke,
        sent the request twice, and the answer to the first is lost. The next try is signed anew.

        An answer that says when to come back (Retry-After) is waited for, unless that is longer than
        `LONGEST_RETRY_AFTER_SECONDS`.
        """
        try:
            return retrying(action, self._jitter, self._sleep)
        except ErrorAnswer as answer:
            raise told_error(answer, service_url=self.service_url) from answer
        except httpx.HTTPError as error:
            raise ServiceUnreachable(
                "the service does not answer",
                got=f"{type(error).__name__}: {error}",
                expected=f"a hetlora service at {self.service_url}",
            ) from error

    @contextmanager
    def open(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """One signed try; for use within `retrying`, which gives its errors their types."""
        with self._client.stream(method, path, content=body, headers=headers) as response:
            if not response.is_success:
                raise ErrorAnswer(response.status_code, self._read(response), asked_seconds(response.headers))
            yield response

    def ask(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Headers:
        """One signed try, as `open`, for an answer that is all in its headers."""
        with self.open(method, path, body=body, headers=headers) as response:
            self._read(response)  # or the connection could not be used again
            return response.headers

    def _read(self, response: httpx.Response) -> bytes:
        return read_answer(response, self._timer, self._stop)


class _DeviceSignature(httpx.Auth):
    """Signs each request as it leaves (RFC 9421, in the form that hetlora.signature writes)."""

    requires_request_body = True

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        identity = self._transport.identity
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        body_sha256 = sha256_of(request.content)
        parameters = SignatureParameters(
            created=int(self._clock()), nonce=secrets.token_urlsafe(24), key_id=identity.device_id
        )
        base = signature_base(
            parameters, method=request.method, path=path, query=query, body_sha256=body_sha256
        )
        request.headers["Content-Digest"] = content_digest(body_sha256)
        request.headers["Signature-Input"] = parameters.header()
        request.headers["Signature"] = signature_header(identity.sign(base))
        yield request


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise Stopped("this visit was asked to end")


def checked_address(service_url: str) -> str:
    """The address of a service as it was given.

    Raises:
        SettingsError: it is no http or https address, or one with a user or password.
    """
    try:
        url = httpx.URL(service_url)
    except httpx.InvalidURL as error:
        got = None if "@" in service_url else service_url  # before an @ may be a password
        raise SettingsError("service_url is no address", got=got) from error
    if url.userinfo:
        raise SettingsError("service_url with a user or password", expected="none: devices sign")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(
            "service_url is no address of a service", got=service_url, expected="http(s)://HOST[:PORT]"
        )
    return service_url
