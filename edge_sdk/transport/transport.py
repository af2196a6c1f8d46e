"""Signed HTTP with retries: bytes in, bytes out, every fault a typed error."""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import httpx
import stamina

from edge_sdk.identity.identity import Identity
from hetlora import __version__
from hetlora.digest import sha256_of
from hetlora.errors import (
    BodyTooSlow,
    ChecksumMismatch,
    ReplayedRequest,
    ServiceUnreachable,
    SettingsError,
    TooManyRequests,
)
from hetlora.messages.common import error_of_answer
from hetlora.signature import SignatureParameters, content_digest, signature_base, signature_header

logger = logging.getLogger(__name__)
# stamina warns of each retry without its cause, on standard error where an app configured no logging.
logging.getLogger("stamina").addHandler(logging.NullHandler())
Result = TypeVar("Result")

# Control answers are small; what is larger is fetched as an object with a promised size.
MAX_ANSWER_BYTES: Final = 1024 * 1024
# Eight tries outlast a service that restarts (about 16 s of waiting on average), and give up in the time that
# somebody would wait before looking for the fault.
MAX_TRIES: Final = 8
FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 8.0
# A visit that would wait longer ends, and another comes later.
LONGEST_RETRY_AFTER_SECONDS: Final = 60.0
# The last update of a round may have the service aggregate before it answers.
TIMEOUT: Final = httpx.Timeout(60, connect=10)
_PASSING: Final = {TooManyRequests.status, BodyTooSlow.status, ChecksumMismatch.status}


class Transport:
    """Requests to one service, signed as one device.

    Each try is signed anew, with its own time and nonce, as the service refuses a nonce that it has seen.

    Args:
        service_url: where the service answers, http or https.
        identity: the key that signs.
        clock: Unix seconds, for the signatures.
        http: the connection layer; give one for a private certificate authority, a proxy, or a test.
        jitter: spreads the waits between tries.

    Raises:
        SettingsError: `service_url` is no http or https address, or one with a user or password.
    """

    def __init__(
        self,
        service_url: str,
        identity: Identity,
        *,
        clock: Callable[[], float] = time.time,
        http: httpx.BaseTransport | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self.service_url = _checked(service_url)
        self.identity = identity  # another from the next request on, when it is set
        self._jitter = jitter or random.Random()
        self._client = httpx.Client(
            base_url=self.service_url,
            auth=_DeviceSignature(self, clock),
            # Digests and ranges are over the bytes as they travel.
            headers={"Accept-Encoding": "identity", "User-Agent": f"hetlora-edge-sdk/{__version__}"},
            timeout=TIMEOUT,
            transport=http,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def exchange(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send a request until it is answered, and return the body of the answer.

        Raises:
            ServiceUnreachable: no answer after all tries, or one that no hetlora service gives, such as one
                of more than `MAX_ANSWER_BYTES`.
            HetloraError: whichever error the service's problem document tells of.
        """

        def once() -> bytes:
            with self.open(method, path, body=body, headers=headers) as response:
                return _read(response)

        return self.retrying(once)

    def retrying(self, action: Callable[[], Result]) -> Result:
        """Call `action` until it succeeds: again after faults of the line, 408, 429, 5xx, with full jitter.

        Again also after `replayed_request`: something on the way, such as a proxy whose connection broke,
        sent the request twice, and the answer to the first is lost. The next try is signed anew.

        An answer that says when to come back (Retry-After) is waited for, unless that is longer than
        `LONGEST_RETRY_AFTER_SECONDS`.
        """
        try:
            for attempt in stamina.retry_context(on=self._backoff(), attempts=MAX_TRIES, timeout=None):
                with attempt:
                    return action()
        except _ErrorAnswer as answer:
            told = error_of_answer(answer.status, answer.body, service_url=self.service_url)
            if isinstance(told, TooManyRequests):
                told.retry_after_seconds = answer.retry_after_seconds
            raise told from answer
        except httpx.HTTPError as error:
            raise ServiceUnreachable(
                "the service does not answer",
                got=f"{type(error).__name__}: {error}",
                expected=f"a hetlora service at {self.service_url}",
            ) from error
        raise AssertionError("the last try either returns or raises")

    @contextmanager
    def open(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """One signed try; for use within `retrying`, which gives its errors their types."""
        with self._client.stream(method, path, content=body, headers=headers) as response:
            if not response.is_success:
                retry_after = response.headers.get("Retry-After", "")
                raise _ErrorAnswer(response.status_code, _read(response), _seconds(retry_after))
            yield response

    def ask(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Headers:
        """One signed try, as `open`, for an answer that is all in its headers."""
        with self.open(method, path, body=body, headers=headers) as response:
            _read(response)  # or the connection could not be used again
            return response.headers

    def _backoff(self) -> Callable[[Exception], bool | float]:
        tries = 0

        def wait_seconds(error: Exception) -> bool | float:
            nonlocal tries
            tries += 1
            if not _worth_another_try(error):
                return False
            longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (tries - 1))
            asked = error.retry_after_seconds if isinstance(error, _ErrorAnswer) else 0.0
            logger.info("try=%d of=%d event=failed error=%r", tries, MAX_TRIES, error)
            return asked + self._jitter.uniform(0, longest)

        return wait_seconds


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


class _ErrorAnswer(Exception):
    """An answer that is no success, its body not parsed yet."""

    def __init__(self, status: int, body: bytes, retry_after_seconds: float) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after_seconds = retry_after_seconds


def _worth_another_try(error: Exception) -> bool:
    if isinstance(error, _ErrorAnswer):
        # 460: damaged on its way; 408: held up on it.
        passing = error.status >= 500 or error.status in _PASSING
        passing = passing or _is_replay(error)
        return passing and error.retry_after_seconds <= LONGEST_RETRY_AFTER_SECONDS
    return isinstance(error, httpx.TransportError)


def _is_replay(answer: _ErrorAnswer) -> bool:
    told = error_of_answer(answer.status, answer.body, service_url="")
    return isinstance(told, ReplayedRequest)


def _seconds(retry_after: str) -> float:
    """How long an answer asks to be left alone; 0 unless it says in seconds: a date needs a right clock."""
    return float(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else 0.0


def _read(response: httpx.Response) -> bytes:
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            raise ServiceUnreachable(
                "the answer is not one of a hetlora service",
                got="a longer one",
                expected=f"up to {MAX_ANSWER_BYTES} bytes",
            )
    return bytes(data)


def _checked(service_url: str) -> str:
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
