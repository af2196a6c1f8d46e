"""Around every request: its id, the lines and the span that carry it, its figures, and its last refuge."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator_service.api.errors import problem_response
from aggregator_service.observability.log_context import work
from aggregator_service.observability.metrics import Metrics
from aggregator_service.observability.tracing import Tracing, note_traceparent, tell_request
from aggregator_service.storage.passing import log_fault
from hetlora.errors import HetloraError, ServiceFailed, UnavailableError
from hetlora.messages.common import Problem, problem_of

log = logging.getLogger(__name__)

REQUEST_ID: Final = "X-Request-Id"
# Whoever sends an id has it on every line: it can be no more than a word.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# Probes and scrapes come by the second; spans of them would bury the others.
_UNTRACED: Final = "/internal/"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(slots=True)
class Exchange:
    """What went over one connection for one request."""

    receive_next: Receive
    send_next: Send
    request_id: str
    received_bytes: int = 0
    sent_bytes: int = 0
    status: int | None = None

    async def receive(self) -> Message:
        message = await self.receive_next()
        if message["type"] == "http.request":
            self.received_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)[REQUEST_ID] = self.request_id
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
        await self.send_next(message)


class RequestContext:
    """Watches requests; one that fails for a reason nobody foresaw is answered here, and told in the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app, self._metrics, self._tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), time.perf_counter()
        traceparent = headers.get("traceparent", "")
        found = _TRACEPARENT.fullmatch(traceparent)
        exchange = Exchange(receive, send, request_id_of(headers, found[1] if found else None))
        tracing = Tracing() if scope["path"].startswith(_UNTRACED) else self._tracing
        with (
            work(request_id=exchange.request_id),
            self._metrics.requests_in_progress.track_inprogress(),
            tracing.span("request", kind="SERVER", parent=traceparent if found else None) as span,
        ):
            note_traceparent(span)
            try:
                await self._answer(scope, exchange)
            finally:
                route, method = _labels(scope)
                self._count(exchange, route, method, time.perf_counter() - began)
                tell_request(span, route, method, exchange.status)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # By a stop that waited `shutdown_seconds` for it; the server would tell it as a fault.
            log.warning("path=%s request=broken_off", scope["path"])
            if exchange.status is None:
                stopping = problem_of(UnavailableError("the service stops"))
                await self._break_off(scope, exchange, stopping)
        except Exception as error:
            if exchange.status is not None:
                # Nothing can be said any more but by returning early, which has the server break off. Where
                # a handler of ours would have told the cause, the framework's own error hides it.
                cause = error.__cause__ if isinstance(error.__cause__, HetloraError) else error
                log_fault(log, cause, "path=%s answer=broken_off", scope["path"])
                return
            log.exception("path=%s code=%s", scope["path"], ServiceFailed.code)
            # The cause goes to the log, never to the caller.
            fault = problem_of(ServiceFailed("the service met a fault of its own"))
            await self._break_off(scope, exchange, fault)

    async def _break_off(self, scope: Scope, exchange: Exchange, problem: Problem) -> None:
        answer = problem_response(problem, {"Connection": "close"})  # the body may not have been read
        await answer(scope, exchange.receive, exchange.send)

    def _count(self, exchange: Exchange, route: str, method: str, seconds: float) -> None:
        metrics, status = self._metrics, str(exchange.status or "none")
        metrics.requests.labels(route, method, status).inc()
        metrics.request_seconds.labels(route, method).observe(seconds)
        metrics.received_bytes.labels(route, method).inc(exchange.received_bytes)
        metrics.sent_bytes.labels(route, method).inc(exchange.sent_bytes)
        log.debug("method=%s route=%s status=%s seconds=%.3f", method, route, status, seconds)


def request_id_of(headers: Headers, trace_id: str | None) -> str:
    """The id that a request brings, else that of the trace that it is part of, else a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else trace_id or secrets.token_hex(16)


def _labels(scope: Scope) -> tuple[str, str]:
    """The path's template and the method; whatever a stranger makes up is one value of each."""
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    return route, method
