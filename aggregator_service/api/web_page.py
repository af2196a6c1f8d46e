"""The built page of the browser client, served from a folder at `/page/`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from aggregator_service.api.errors import problems
from aggregator_service.api.route import OpenRoute
from aggregator_service.settings import Settings
from hetlora.errors import NotFound, SettingsError

INDEX: Final = "index.html"
# What a build has; anything else in the folder is not served.
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
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


def page_router(settings: Settings) -> APIRouter:
    """The routes of the page; none without `web_page_dir`.

    Raises:
        SettingsError: the folder holds no page.
    """
    router = APIRouter(route_class=OpenRoute, include_in_schema=False, responses=problems(404))
    if settings.web_page_dir is None:
        return router
    files = _files(settings.web_page_dir)
    # A build may change under the same names: browsers ask each time, and are told where nothing did.
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    headers |= _ISOLATION if settings.web_page_isolated else {}

    @router.get("/")
    async def get_root() -> Response:
        return RedirectResponse("/page/")

    @router.get("/page/")
    async def get_index(request: Request) -> Response:
        return _answer(request, files[INDEX], headers)

    @router.get("/page/{name}")
    async def get_file(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound("no such file of the page", got=name)
        return _answer(request, files[name], headers)

    return router


def _files(folder: Path) -> dict[str, Path]:
    """The files of a build by name, as they are when the service starts."""
    try:
        found = {path.name: path for path in folder.iterdir() if path.suffix in _TYPES and path.is_file()}
    except OSError as error:
        raise SettingsError("HETLORA_WEB_PAGE_DIR cannot be read", got=error) from error
    if INDEX not in found:
        raise SettingsError(
            "HETLORA_WEB_PAGE_DIR holds no page",
            got=folder,
            expected=f"a built edge_sdk/web/dist, with {INDEX}",
        )
    return found


def _answer(request: Request, path: Path, headers: dict[str, str]) -> Response:
    answer = FileResponse(path, media_type=_TYPES[path.suffix], headers=headers, stat_result=path.stat())
    if request.headers.get("if-none-match") == answer.headers["etag"]:
        return Response(status_code=304, headers={**headers, "ETag": answer.headers["etag"]})
    return answer
