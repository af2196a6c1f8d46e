"""`/internal/v1`: probes, and figures for Prometheus. Not for the world: see docs/deployment.md."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder

from aggregator_service.api.errors import problems
from aggregator_service.api.route import OpenRoute, ServiceOf
from hetlora.messages.common import Message

router = APIRouter(
    prefix="/internal/v1", tags=["probes"], route_class=OpenRoute, responses=problems(500, 503)
)


class Probe(Message):
    """The answer of a probe that found nothing wrong."""

    status: Literal["ok"] = "ok"


@router.get("/health")
async def get_health() -> Probe:
    """The process answers."""
    return Probe()


@router.get("/ready")
async def get_ready(request: Request) -> Probe:
    """Database and object store answer in time, the tables fit, and the round worker shows signs of life."""
    await request.app.state.readiness.check()
    return Probe()


@router.get("/metrics", response_class=PlainTextResponse)
def get_metrics(request: Request, service: ServiceOf) -> Response:
    """Figures of this process and of the fleet, in Prometheus' text format or OpenMetrics."""
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # the library compares whatever version is asked for with a number
        encode, content_type = choose_encoder("")
    return Response(encode(service.metrics.registry), headers={"Content-Type": content_type})
