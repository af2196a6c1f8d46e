"""Signing in and out: a plain form, which needs no script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from console.sessions import COOKIE, Sessions
from hetlora.cli.operator import Operator
from hetlora.errors import HetloraError, SettingsError

MOST_BYTES: Final = 4096  # of a form that holds one key
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Sign in - hetlora</title><style>
:root { color-scheme: light dark; font: 1rem system-ui, sans-serif }
main { max-width: 22rem; margin: 12vh auto; padding: 0 1rem }
label, input, button { display: block; width: 100%%; box-sizing: border-box; font: inherit }
input, button { padding: .6rem; margin: .4rem 0 1rem }
:focus-visible { outline: 3px solid #1976d2; outline-offset: 2px }
</style></head><body><main><h1>hetlora</h1>%s<form method="post" action="/login">
<label for="token">Operator key</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button></form><p>The key is the one that <code>hetlora key create</code> showed.</p>
</main></body></html>"""


def add_login(app: FastAPI, sessions: Sessions, connect: Callable[[str], Operator], secure: bool) -> None:
    """Add the routes of signing in and out; `secure` keeps the cookie to TLS."""

    @app.get("/login")
    def login() -> Response:
        return _page()

    @app.post("/login")
    async def sign_in(request: Request) -> Response:
        try:
            token = await _token_of(request)
            operator = connect(token)
            holder = await asyncio.to_thread(operator.whoami)
        except HetloraError as error:
            return _page(error)
        answer = RedirectResponse("/", status_code=303)
        session_id = sessions.open(operator, holder)
        # Strict: neither a form nor a socket of another site comes with it.
        answer.set_cookie(COOKIE, session_id, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.post("/sign-out")
    def sign_out(request: Request) -> Response:
        sessions.close(request.cookies.get(COOKIE))
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer


async def _token_of(request: Request) -> str:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise SettingsError("the form is too large", expected=f"at most {MOST_BYTES} bytes")
    return parse_qs(body.decode("latin-1")).get("token", [""])[0].strip()


def _page(error: HetloraError | None = None) -> HTMLResponse:
    told = "" if error is None else f'<p role="alert">{escape(f"{error.code}: {error}")}</p>'
    return HTMLResponse(_PAGE % told, status_code=200 if error is None else error.status)
