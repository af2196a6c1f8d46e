"""The console put together: pages, the gate before them, and the server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from nicegui import ui
from starlette.types import ASGIApp

from console import audit, devices, overview, run_detail, runs
from console.gate import Gate, session_id_of
from console.login import add_login
from console.sessions import Session, Sessions
from hetlora.cli.operator import Operator
from hetlora.errors import AuthenticationFailed


def create_console(connect: Callable[[str], Operator], *, secure: bool) -> ASGIApp:
    """All pages; NiceGUI keeps them for the process, so that there is one console in it.

    Args:
        connect: opens a connection for the key that somebody signs in with.
        secure: whether the browser comes by TLS.
    """
    sessions = Sessions()
    app = FastAPI(openapi_url=None)
    add_login(app, sessions, connect, secure)

    def session_of(request: Request) -> Session:
        session = sessions.find(session_id_of(request.scope))
        if session is None:  # it ended after the gate
            raise AuthenticationFailed("signed out", expected="an operator's key")
        return session

    @app.get("/devices.csv")
    def device_file(request: Request, population: str = "") -> StreamingResponse:
        found = session_of(request).operator.devices(population or None)
        return StreamingResponse(devices.device_lines(found), media_type="text/csv")

    _add_pages(session_of)
    ui.run_with(app, title="hetlora", dark=None, language="en-US")
    return Gate(app, sessions)


def _add_pages(session_of: Callable[[Request], Session]) -> None:
    @ui.page("/")
    async def show_overview(request: Request) -> None:
        await overview.overview(session_of(request))

    @ui.page("/runs")
    async def show_runs(request: Request, cursor: str | None = None) -> None:
        await runs.runs(session_of(request), cursor)

    @ui.page("/runs/{run_id}")
    async def show_run(request: Request, run_id: str, cursor: str | None = None) -> None:
        await run_detail.run_detail(session_of(request), run_id, cursor)

    @ui.page("/devices")
    async def show_devices(request: Request, population: str = "", cursor: str | None = None) -> None:
        await devices.devices(session_of(request), population, cursor)

    @ui.page("/audit")
    async def show_audit(request: Request, subject: str = "", cursor: str | None = None) -> None:
        await audit.audit(session_of(request), subject, cursor)


def serve_console(app: ASGIApp, listener: socket.socket, certificate: Path | None, key: Path | None) -> None:
    """Answer browsers who come to a socket that listens, until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        http="h11",
        loop="asyncio",
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    uvicorn.Server(config).run(sockets=[listener])
