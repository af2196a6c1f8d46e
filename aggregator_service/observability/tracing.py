"""Spans for OpenTelemetry, where somebody collects them; else nothing, at the cost of nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import hetlora
from aggregator_service.observability.log_context import facts, note
from hetlora.errors import DependencyMissing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span

log = logging.getLogger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE_NAME: Final = "hetlora"


class Tracing:
    """Spans of one process, given to `provider`; without one, none is made."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE_NAME, hetlora.__version__) if provider else None

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Mapping[str, str] | None = None,
        *,
        kind: Literal["SERVER", "INTERNAL"] = "INTERNAL",
        parent: str | None = None,
        link: str | None = None,
    ) -> Iterator[Span | None]:
        """A span around the block, within the one around it; it ends as failed where the block does.

        Args:
            parent: `traceparent` of a span of another process that this one is part of.
            link: `traceparent` of a span that led to this one.
        """
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(
            name,
            context=_context_of(parent) if parent else None,
            kind=SpanKind[kind],
            attributes=dict(attributes or {}),
            links=[_link_to(link)] if link else None,
        ) as span:
            yield span

    def close(self) -> None:
        """Send what is not sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


def open_tracing(wanted: bool | None) -> Tracing:
    """Spans by OTLP over HTTP, set by OpenTelemetry's variables (OTEL_...); None: if they name an endpoint.

    Raises:
        DependencyMissing: spans are wanted by name, and OpenTelemetry is not installed.
    """
    named = any(os.environ.get(name) for name in ENDPOINTS)
    if wanted is False or (wanted is None and not named):
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME as NAME_KEY
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        missing = DependencyMissing(
            "traces are not installed",
            got=f"no module {error.name}",
            expected="pip install 'hetlora[tracing]'",
        )
        if wanted is None:  # the variable may be there for others on this machine
            log.warning("tracing=off error=%s", missing)
            return Tracing()
        raise missing from error
    resource = Resource({NAME_KEY: SERVICE_NAME, "service.version": hetlora.__version__})
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def note_traceparent(span: Span | None) -> None:
    """Let lines, and rows that this work writes, name the span of the work at hand."""
    if span is not None:
        of = span.get_span_context()
        note(traceparent=f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}")


def tell_request(span: Span | None, route: str, method: str, status: int | None) -> None:
    """Give a request's span its name and its end; no status means that the connection broke off."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route})
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(StatusCode.ERROR)


def current_traceparent() -> str | None:
    """What `note_traceparent` noted."""
    return facts().get("traceparent")


def _context_of(traceparent: str) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _link_to(traceparent: str) -> Link:
    from opentelemetry.trace import Link, get_current_span

    return Link(get_current_span(_context_of(traceparent)).get_span_context())
