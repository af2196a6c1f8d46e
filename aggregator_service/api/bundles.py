"""`/management/v1`: objects and the bundles made of them."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from aggregator_service.api.body import BINARY_BODY, received_blob
from aggregator_service.api.errors import problems
from aggregator_service.api.objects import BINARY, JSON_OBJECT, object_response
from aggregator_service.api.operator_route import AuditEntryOf, operator_router
from aggregator_service.api.pages import DEFAULT_LIMIT, Cursor, Limit, page_of
from aggregator_service.api.route import ServiceOf
from aggregator_service.api.views import bundle_status
from aggregator_service.artifacts.bundles import get_bundle
from aggregator_service.artifacts.objects import keep
from aggregator_service.artifacts.publishing import publish
from aggregator_service.storage.tables import BundleRow
from hetlora.digest import Sha256, verify_digest
from hetlora.messages.common import Page
from hetlora.messages.management import BundlePublish, BundleStatus

router = operator_router()


@router.put("/objects/{sha256}", status_code=204, openapi_extra=BINARY_BODY, responses=problems(408, 413))
async def put_object(sha256: Sha256, request: Request, service: ServiceOf) -> None:
    limit_bytes = service.settings.max_bundle_file_bytes
    async with received_blob(request, service.objects, limit_bytes) as blob:
        verify_digest("body of the object", got=blob.sha256, expected=sha256)
        await run_in_threadpool(keep, service, blob)


@router.head("/objects/{sha256}", response_class=Response, responses=BINARY)
def head_object(sha256: Sha256, request: Request, service: ServiceOf) -> Response:
    return object_response(request, service.objects, sha256, "application/octet-stream")


@router.post("/bundles", status_code=201, responses=problems(404, 408, 413))
def post_bundle(message: BundlePublish, service: ServiceOf, entry: AuditEntryOf) -> BundleStatus:
    entry.subject = message.digest
    publish(service, message.digest)
    with service.database.read() as session:
        return bundle_status(session, get_bundle(session, message.digest))


@router.get("/bundles")
def list_bundles(
    service: ServiceOf, cursor: Cursor = None, limit: Limit = DEFAULT_LIMIT
) -> Page[BundleStatus]:
    return page_of(service, BundleRow, BundleRow.digest, bundle_status, cursor=cursor, limit=limit)


@router.get("/bundles/{digest}/manifest", response_class=Response, responses=JSON_OBJECT)
def get_manifest(digest: Sha256, request: Request, service: ServiceOf) -> Response:
    with service.database.read() as session:
        size = get_bundle(session, digest).manifest_bytes
    return object_response(request, service.objects, digest, "application/json", known_bytes=size)
