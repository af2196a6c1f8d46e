"""A route that anyone may call, and what its handlers ask for; routes that know their callers build on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from aggregator_service.api.body import with_bounded_body
from aggregator_service.service import Service


def service_of(request: Request) -> Service:
    """The running service behind a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


class OpenRoute(APIRoute):
    """A route that anyone may call; JSON bodies are bounded and checked before they are parsed."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not iscoroutinefunction(endpoint):
            endpoint = _answering(endpoint, options.get("status_code") or 200)
        super().__init__(path, endpoint, **options)

    async def check_caller(self, request: Request) -> None:
        """Refuse a caller, from the headers alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await self.check_caller(request)
            if self.body_field is not None:
                limit_bytes = service_of(request).settings.max_json_bytes
                request = await with_bounded_body(request, limit_bytes)
            return await handle(request)

        return guarded


def _answering(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    """An endpoint whose message is made JSON in its own thread: FastAPI would take another for that."""

    @wraps(endpoint)
    def answer(**asked: Any) -> Any:
        found = endpoint(**asked)
        if not isinstance(found, BaseModel):
            return found
        return Response(found.model_dump_json(by_alias=True), status, media_type="application/json")

    return answer


# A coroutine, though it waits for nothing: FastAPI sends plain functions through a thread, each by itself.
async def _service(request: Request) -> Service:
    return service_of(request)


ServiceOf = Annotated[Service, Depends(_service)]
