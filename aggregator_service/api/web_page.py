"""The built page of the browser client, served from a folder at `/page/`."""

from __future__ import annotations

import os
import re
import stat
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from aggregator_service.api.errors import problems
from aggregator_service.api.open_transfers import open_page_file
from aggregator_service.api.route import OpenRoute
from aggregator_service.settings import Settings
from hetlora.errors import NotFound, SettingsError

INDEX: Final = "index.html"
_METHODS: Final = ["GET", "HEAD"]
# What a build has; anything else in the folder is not served.
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
# The folder of a build's files but the index, which is named by what is in them: `build.mjs`.
_RELEASE: Final = re.compile(r"[0-9a-f]{16}")
# No script but these files, of the network nothing but this service, and no place in another page's frame.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# With these two a browser lets a page share memory between threads.
_ISOLATION: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class PageFile(FileResponse):
    """A file on its way, which holds a place for as long as it is."""

    place: AbstractContextManager[object] = nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.place:
            await super().__call__(scope, receive, send)


def page_router(settings: Settings) -> APIRouter:
    """The routes of the page; none without `web_page_dir`.

    Raises:
        SettingsError: the folder holds no page.
    """
    router = APIRouter(route_class=OpenRoute, include_in_schema=False, responses=problems(404, 429))
    if settings.web_page_dir is None:
        return router
    folder = settings.web_page_dir
    _check_page(folder)
    headers = {"Content-Security-Policy": _POLICY} | (_ISOLATION if settings.web_page_isolated else {})
    # Of the index, or of a build without releases, browsers ask each time whether it changed.
    changing = {**headers, "Cache-Control": "no-cache"}
    fixed = {**headers, "Cache-Control": "public, max-age=31536000, immutable"}

    @router.api_route("/", methods=_METHODS)
    @router.api_route("/page", methods=_METHODS)
    async def get_root() -> Response:
        return RedirectResponse("/page/")

    @router.api_route("/page/", methods=_METHODS)
    async def get_index(request: Request) -> Response:
        return _answer(request, folder, INDEX, changing)

    @router.api_route("/page/{name}", methods=_METHODS)
    async def get_file(request: Request, name: str) -> Response:
        return _answer(request, folder, name, changing)

    @router.api_route("/page/{release}/{name}", methods=_METHODS)
    async def get_file_of_release(request: Request, release: str, name: str) -> Response:
        if _RELEASE.fullmatch(release) is None:
            raise NotFound("no such file of the page", got=f"{release}/{name}")
        return _answer(request, folder / release, name, fixed)

    return router


def _check_page(folder: Path) -> None:
    """Raise unless there is a page when the service starts."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise SettingsError("HETLORA_WEB_PAGE_DIR cannot be read", got=error) from error
    if INDEX not in names:
        raise SettingsError(
            "HETLORA_WEB_PAGE_DIR holds no page",
            got=folder,
            expected=f"a built edge_sdk/web/dist, with {INDEX}",
        )


def _answer(request: Request, folder: Path, name: str, headers: dict[str, str]) -> Response:
    """A file as it is now: while a page is built anew, some are missing for a moment.

    Raises:
        NotFound: there is none of this name that a build has.
        TooManyRequests: others are reading as many as this process sends at a time.
    """
    path = folder / name
    found = _file_stat(path) if path.name == name and path.suffix in _TYPES else None
    if found is None:
        raise NotFound("no such file of the page", got=name)
    answer = PageFile(path, media_type=_TYPES[path.suffix], headers=headers, stat_result=found)
    # Also as a weak one: a proxy makes it that where it packs.
    if answer.headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={**headers, "ETag": answer.headers["etag"]})
    if found.st_size <= PageFile.chunk_size:
        return answer  # in one piece, whether or not it is read
    with ExitStack() as place:
        place.enter_context(open_page_file(request))
        answer.place = place.pop_all()
    return answer


def _file_stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # no file, none that may be read, or a name that none can have
        return None
    return found if stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK) else None
