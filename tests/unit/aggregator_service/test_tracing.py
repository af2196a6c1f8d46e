"""Spans of requests and of commits, as OpenTelemetry's collector gets them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from service_bundle import make_adapter
from service_operator import Operator

from aggregator_service.app import create_app
from aggregator_service.observability.tracing import ENDPOINTS, Tracing, open_tracing
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def app(service: Service, exporter: InMemorySpanExporter) -> FastAPI:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return create_app(replace(service, tracing=Tracing(provider)))


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The one span of a name; it ends a moment after the answer came."""
    deadline = time.monotonic() + 10
    while not (found := [span for span in exporter.get_finished_spans() if span.name == name]):
        assert time.monotonic() < deadline, name
        time.sleep(0.005)
    [span] = found
    return span


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_request_is_a_span_named_by_its_route(http: httpx.Client, exporter: InMemorySpanExporter) -> None:
    http.get("/management/v1/runs", headers={"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"})
    span = named(exporter, "GET /management/v1/runs")
    assert attributes_of(span) == {
        "http.request.method": "GET",
        "http.route": "/management/v1/runs",
        "http.response.status_code": 401,
    }
    assert span.kind.name == "SERVER"
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (int(TRACE_ID, 16), int(SPAN_ID, 16))
    assert span.status.status_code is StatusCode.UNSET


def test_probes_and_scrapes_make_no_spans(http: httpx.Client, exporter: InMemorySpanExporter) -> None:
    for name in ("health", "ready", "metrics"):
        assert http.get(f"/internal/v1/{name}").is_success
    assert exporter.get_finished_spans() == ()


def test_request_that_ends_in_a_fault_is_a_failed_span(
    http: httpx.Client, app: FastAPI, exporter: InMemorySpanExporter
) -> None:
    @app.get("/faulty")
    def faulty() -> None:
        raise RuntimeError("of the inside")

    app.router.routes.insert(0, app.router.routes.pop())
    http.get("/faulty")
    assert named(exporter, "GET /faulty").status.status_code is StatusCode.ERROR


def test_commit_is_linked_to_the_request_that_met_the_goal(
    operator: Operator, device: FakeDevice, bundle: str, exporter: InMemorySpanExporter
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    commit = named(exporter, "commit round")
    submit = named(exporter, "POST /device/v1/assignments/{assignment_id}:submit")
    assert [link.context.span_id for link in commit.links] == [id_of(submit)]
    assert commit.parent is None
    assert attributes_of(commit) == {"hetlora.run": run_id, "hetlora.round": f"{run_id}-000000-0000"}
    for step in ("read", "aggregate", "store", "write"):
        parent = named(exporter, step).parent
        assert parent is not None
        assert parent.span_id == id_of(commit)


def test_nothing_is_traced_unless_somebody_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    with open_tracing(None).span("any") as span:
        assert span is None
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:1")
    with open_tracing(False).span("any") as span:
        assert span is None


class Collector(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Posts)
        self.posted: list[tuple[str, bytes]] = []


class Posts(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posted.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_spans_go_to_the_endpoint_of_the_environment(
    settings: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINTS[0], f"http://127.0.0.1:{collector.server_port}")
    with closing(open_service(settings)) as service, service.tracing.span("a span of ours"):
        pass
    [(path, body)] = collector.posted
    assert path == "/v1/traces"
    assert b"a span of ours" in body or body.startswith(b"\x1f\x8b")
