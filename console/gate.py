"""What stands before every page: nobody comes in without a session, and no other site frames a page."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.sessions import COOKIE, Sessions

_HEADERS: Final = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """ASGI middleware; sockets need a session as requests do."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or send to the form."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["path"] == "/login" or self._sessions.find(session_id_of(scope)) is not None:
            await self._app(scope, receive, guarded)
        elif scope["type"] == "http":
            await RedirectResponse("/login", status_code=303)(scope, receive, guarded)
        else:
            await send({"type": "websocket.close", "code": 1008})


def session_id_of(scope: Scope) -> str | None:
    """What the browser's cookie holds, if anything."""
    try:
        cookies = SimpleCookie(Headers(scope=scope).get("cookie", ""))
    except CookieError:
        return None
    return cookies[COOKIE].value if COOKIE in cookies else None
