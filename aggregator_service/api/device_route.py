"""Which device calls: signatures are checked before a body is read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader

from aggregator_service.api.body import claimed_sha256
from aggregator_service.api.errors import ALWAYS, problems
from aggregator_service.api.route import OpenRoute, service_of
from aggregator_service.devices.identity import SignedRequest, identify
from aggregator_service.observability.log_context import note
from hetlora.errors import AuthenticationFailed
from hetlora.signature import parse_signature


class DeviceRoute(OpenRoute):
    """A route of accepted devices. The signature covers the digest of the body, so it is checked first."""

    async def check_caller(self, request: Request) -> None:
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


# Coroutines, though they wait for nothing: see `route.py`.
async def _device_id(request: Request) -> str:
    return str(request.state.device_id)


async def _signed_sha256(request: Request) -> str:
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


DeviceId = Annotated[str, Depends(_device_id)]
SignedSha256 = Annotated[str, Depends(_signed_sha256)]  # what the device signed that its body hashes to
