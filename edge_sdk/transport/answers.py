"""What a service answers, read within bounds and told as errors of a service: who answers may be anybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import httpx

from edge_sdk.transport.retries import ErrorAnswer
from edge_sdk.units import MIB
from hetlora.errors import (
    AdapterUnusable,
    BundleError,
    DataError,
    HetloraError,
    NoAdapter,
    RefusedError,
    ServiceAway,
    ServiceFailed,
    SettingsError,
    Stopped,
    UnavailableError,
)
from hetlora.messages.common import error_of_answer, no_service

# Control answers are small; what is larger is fetched as an object with a promised size.
MAX_ANSWER_BYTES: Final = MIB
# From an answer's head to its last byte.
MAX_ANSWER_SECONDS: Final = 300.0
# The same once the visit was asked to end: what a service says by then is still heard.
STOPPED_ANSWER_SECONDS: Final = 2.0
# What is wrong with a device itself, which only the device can say.
_OF_DEVICES: Final = (AdapterUnusable, BundleError, DataError, NoAdapter, SettingsError)


def read_answer(
    response: httpx.Response, timer: Callable[[], float], stop: threading.Event | None = None
) -> bytes:
    """The body of an answer whose head has come; `timer` tells seconds.

    Raises:
        ServiceUnreachable: it is longer than `MAX_ANSWER_BYTES` or takes longer than `MAX_ANSWER_SECONDS`, or
            it is compressed, which nobody asked for: a few bytes unpack to more memory than a device has.
        Stopped: `stop` is set, and it is not all there after `STOPPED_ANSWER_SECONDS`.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise no_service(f"Content-Encoding {encoding}", expected="none")
    began, data = timer(), bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            raise no_service("a longer one", expected=f"up to {MAX_ANSWER_BYTES} bytes")
        seconds = timer() - began
        if seconds > STOPPED_ANSWER_SECONDS and stop is not None and stop.is_set():
            raise Stopped("this visit was asked to end")
        if seconds > MAX_ANSWER_SECONDS:
            raise no_service("a slower one", expected=f"all of it within {MAX_ANSWER_SECONDS:.0f} seconds")
    return bytes(data)


def told_error(answer: ErrorAnswer, *, service_url: str) -> HetloraError:
    """The error of a service that an answer tells of, and when it says to come back.

    A code of a device's own faults, were it believed, would end the device, or its wait, without cause. So
    every 5xx, and every UnavailableError, is a ServiceAway, and any other such code a RefusedError.
    """
    told = error_of_answer(answer.status, answer.body, service_url=service_url)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(told, UnavailableError):
        if not isinstance(told, ServiceAway):
            told = ServiceFailed(told.what, got=told.got, expected=told.expected)
        told.retry_after_seconds = answer.retry_after_seconds
    elif isinstance(told, _OF_DEVICES):
        told = RefusedError(told.what, got=told.got, expected=told.expected)
    return told
