"""The application: routes, error shape and headers around an open service."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

import hetlora
from aggregator_service.api import (
    adoptions,
    bundles,
    device,
    evaluations,
    fleet,
    internal,
    keys,
    privacy,
    quarantine,
    registry,
    rollouts,
    runs,
    uploads,
)
from aggregator_service.api.errors import HANDLERS
from aggregator_service.api.headers import SecurityHeaders, TusAnswers
from aggregator_service.api.request_context import RequestContext
from aggregator_service.api.web_page import page_router
from aggregator_service.readiness import Readiness
from aggregator_service.service import Service
from aggregator_service.worker.worker import Worker

log = logging.getLogger(__name__)

WORKERS_CONNECTIONS: Final = 2  # to commit, and to renew its claim meanwhile

ROUTERS = (
    device.enrolment,
    device.router,
    evaluations.router,
    adoptions.router,
    uploads.discovery,
    uploads.router,
    fleet.router,
    bundles.router,
    runs.router,
    registry.router,
    quarantine.router,
    rollouts.router,
    keys.router,
    privacy.router,
    internal.router,
)


def create_app(service: Service) -> FastAPI:
    """The application of a process's role: its routes, its round worker, and the service, which it closes.

    The service comes open: what is wrong with its folder is told to whoever starts it, not to a server's log.

    Raises:
        SettingsError: the folder of the page holds none.
    """
    role = service.settings.role
    page = page_router(service.settings)
    worker = None if role == "api" else Worker(service)
    routers = (internal.router,) if role == "worker" else (*ROUTERS, page)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(LoopFaults())
        # As each works with the database: more would wait for a connection, and take turns for nothing. The
        # worker's are its own: without them it would lose its claims while requests wait for a store.
        connections, own = service.settings.database_connections, WORKERS_CONNECTIONS if worker else 0
        current_default_thread_limiter().total_tokens = connections - own
        if worker is not None:
            worker.start()
        try:
            yield
        finally:
            if worker is not None:
                worker.stop()
            service.close()

    # No documentation pages: they would load scripts from elsewhere. The contract is /openapi.json.
    app = FastAPI(
        routes=[route for router in routers for route in router.routes],
        title="hetlora aggregation service",
        version=hetlora.__version__,
        lifespan=lifespan,
        exception_handlers={**HANDLERS},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a signature covers the path: one path has one spelling
    )
    app.state.service = service
    app.state.worker = worker
    app.state.open_bodies = Counter()  # of each device, see `open_body`
    app.state.open_downloads = Counter()
    app.state.readiness = Readiness(service, worker)
    app.add_middleware(RequestContext, metrics=service.metrics, tracing=service.tracing)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TusAnswers)  # the outer one
    return app


class LoopFaults:
    """Tells once a second, in one line, that no connection can be taken for want of file descriptors.

    asyncio by itself tells it with a traceback for each place of the backlog, some 30 000 lines in a second.
    """

    def __init__(self) -> None:
        self._told_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
            loop.default_exception_handler(context)
        elif loop.time() - self._told_at >= 1:
            self._told_at = loop.time()
            log.error("connection=refused error=%s", error.strerror)
