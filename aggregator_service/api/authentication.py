"""Which device calls: route classes that check signatures before reading a body."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader

from aggregator_service.api.body import claimed_sha256, with_bounded_body
from aggregator_service.api.errors import ALWAYS, problems
from aggregator_service.identity import SignedRequest, identify
from aggregator_service.observability.work import note
from aggregator_service.service import Service
from hetlora.errors import AuthenticationFailed
from hetlora.signature import parse_signature


def service_of(request: Request) -> Service:
    """The running service behind a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


class OpenRoute(APIRoute):
    """A route that anyone may call; JSON bodies are bounded and checked before they are parsed."""

    async def admit(self, request: Request) -> None:
        """Refuse a caller, from the headers alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await self.admit(request)
            if self.body_field is not None:
                limit_bytes = service_of(request).settings.max_json_bytes
                request = await with_bounded_body(request, limit_bytes)
            return await handle(request)

        return guarded


class DeviceRoute(OpenRoute):
    """A route of accepted devices. The signature covers the digest of the body, so it is checked first."""

    async def admit(self, request: Request) -> None:
        signed = signed_request(request)
        request.state.body_sha256 = signed.body_sha256
        request.state.device_id = await run_in_threadpool(identify, service_of(request), signed)
        note(device=request.state.device_id)


def signed_request(request: Request) -> SignedRequest:
    """What a device signed.

    Raises:
        AuthenticationFailed: a header is missing or malformed.
        MalformedMessage: `Content-Digest` is malformed.
    """
    headers = request.headers
    parameters, signature = parse_signature(headers.get("signature-input"), headers.get("signature"))
    body_sha256 = claimed_sha256(request)
    if body_sha256 is None:
        raise AuthenticationFailed("request carries no Content-Digest", expected="sha-256=:BASE64:")
    return SignedRequest(
        parameters=parameters,
        signature=signature,
        method=request.method,
        path=request.scope["raw_path"].decode("latin-1"),
        query=request.scope["query_string"].decode("latin-1"),
        body_sha256=body_sha256,
    )


def _device_id(request: Request) -> str:
    return str(request.state.device_id)


def _signed_sha256(request: Request) -> str:
    return str(request.state.body_sha256)


def device_router(route_class: type[OpenRoute], *statuses: int) -> APIRouter:
    """Routes of `/device/v1`, all of signed requests."""
    # The dependency only announces the scheme in OpenAPI; the routes check the signature.
    scheme = Depends(
        APIKeyHeader(
            name="Signature",
            auto_error=False,
            description="RFC 9421, with Signature-Input and Content-Digest: see docs/protocol.md",
        )
    )
    return APIRouter(
        prefix="/device/v1",
        tags=["devices"],
        route_class=route_class,
        dependencies=[scheme],
        responses=problems(401, 429, *statuses, *ALWAYS),
    )


ServiceOf = Annotated[Service, Depends(service_of)]
DeviceId = Annotated[str, Depends(_device_id)]
SignedSha256 = Annotated[str, Depends(_signed_sha256)]  # what the device signed that its body hashes to
