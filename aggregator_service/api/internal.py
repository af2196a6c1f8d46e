"""`/internal/v1`: probes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from sqlalchemy import text

from aggregator_service.api.authentication import OpenRoute, ServiceOf
from aggregator_service.api.errors import PROBLEM_RESPONSES
from hetlora.errors import UnavailableError
from hetlora.messages.common import Message

router = APIRouter(prefix="/internal/v1", tags=["probes"], route_class=OpenRoute, responses=PROBLEM_RESPONSES)


class Probe(Message):
    """The answer of a probe that found nothing wrong."""

    status: Literal["ok"] = "ok"


@router.get("/health")
def get_health() -> Probe:
    """The process answers."""
    return Probe()


@router.get("/ready")
def get_ready(request: Request, service: ServiceOf) -> Probe:
    """Database and object store answer, and the round worker runs where the process has one."""
    with service.database.read() as session:
        session.execute(text("SELECT 1"))
    service.store.check()
    worker = request.app.state.worker
    if worker is not None and not worker.is_alive():
        raise UnavailableError("the round worker has ended", expected="a restart of the service")
    return Probe()
