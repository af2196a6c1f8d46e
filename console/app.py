"""The console put together: pages, the gate before them, and the server."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from nicegui import ui
from starlette.types import ASGIApp

from console import (
    adapters,
    audit,
    device_detail,
    devices,
    overview,
    quarantine,
    rollouts,
    run_detail,
    runs,
)
from console.csv_text import csv_lines
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

    _add_files(app, session_of)
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

    @ui.page("/adapters")
    async def show_adapters(request: Request) -> None:
        await adapters.adapters(session_of(request))

    @ui.page("/adapters/{version}")
    async def show_adapter(request: Request, version: str) -> None:
        await adapters.adapter(session_of(request), version)

    @ui.page("/rollouts")
    async def show_rollouts(request: Request, population: str = "", cursor: str | None = None) -> None:
        await rollouts.rollouts(session_of(request), population, cursor)

    @ui.page("/rollouts/{rollout_id}")
    async def show_rollout(
        request: Request, rollout_id: str, state: str = "", cursor: str | None = None
    ) -> None:
        await rollouts.rollout(session_of(request), rollout_id, state, cursor)

    @ui.page("/devices")
    async def show_devices(
        request: Request, population: str = "", state: str = "", cursor: str | None = None
    ) -> None:
        await devices.devices(session_of(request), population, state, cursor)

    @ui.page("/devices/{device_id}")
    async def show_device(request: Request, device_id: str) -> None:
        await device_detail.device_detail(session_of(request), device_id)

    @ui.page("/quarantine")
    async def show_quarantine(request: Request, state: str = "", cursor: str | None = None) -> None:
        await quarantine.quarantine(session_of(request), state, cursor)

    @ui.page("/quarantine/{assignment_id}")
    async def show_quarantined(request: Request, assignment_id: str) -> None:
        await quarantine.quarantined(session_of(request), assignment_id)

    @ui.page("/audit")
    async def show_audit(request: Request, subject: str = "", cursor: str | None = None) -> None:
        await audit.audit(session_of(request), subject, cursor)


def _add_files(app: FastAPI, session_of: Callable[[Request], Session]) -> None:
    """What is taken home: each is read as it is sent."""

    @app.get("/devices.csv")
    def device_file(request: Request, population: str = "", state: str = "") -> StreamingResponse:
        found = session_of(request).operator.devices(population or None)
        rows = (devices.device_row(own) for own in found if state in ("", own.state))
        return StreamingResponse(csv_lines(devices.NAMES, rows), media_type="text/csv")

    @app.get("/audit.csv")
    def audit_file(request: Request, subject: str = "") -> StreamingResponse:
        found = session_of(request).operator.audit(subject=subject or None)
        rows = (audit.audit_row(own) for own in found)
        return StreamingResponse(csv_lines(audit.NAMES, rows), media_type="text/csv")

    @app.get("/adapters/{version}/content")
    def adapter_file(request: Request, version: str) -> Response:
        content = session_of(request).operator.adapter_bytes(version)
        name = {"Content-Disposition": f'attachment; filename="{quote(version, safe="")}.safetensors"'}
        return Response(content, media_type="application/octet-stream", headers=name)

    @app.get("/adapters/{version}/manifest")
    def manifest_file(request: Request, version: str) -> Response:
        signed = session_of(request).operator.registry.manifest(version)
        name = {"Content-Disposition": f'attachment; filename="{quote(version, safe="")}.json"'}
        return Response(signed.model_dump_json(), media_type="application/json", headers=name)


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
    # What is there now stays: without it, a look for garbage holds up one page in twenty by 0.1 s.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run(sockets=[listener])
