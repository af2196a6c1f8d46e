"""`/device/v1/.../uploads`: updates that come in parts, by tus 1.0 (tus.io/protocols/resumable-upload)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import format_datetime
from typing import Annotated, Literal

from fastapi import Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from aggregator_service.api.body import bounded_chunks, without_body
from aggregator_service.api.device_route import DeviceId, DeviceRoute, device_router
from aggregator_service.api.errors import problems
from aggregator_service.api.open_transfers import open_body
from aggregator_service.api.route import ServiceOf
from aggregator_service.assignments.upload_parts import PartTerms, keep_part, terms_of_part
from aggregator_service.assignments.uploads import Upload, begin_upload, end_upload, find_upload
from aggregator_service.storage.incoming import IncomingBlob
from hetlora.errors import ChecksumMismatch, DigestMismatch
from hetlora.messages.common import Identifier, ObjectRef
from hetlora.tus import (
    CHECKSUM_BYTES,
    EXTENSIONS,
    PART_TYPE,
    VERSION,
    parse_checksum,
    parse_metadata,
    sha256_pair,
)


class TusRoute(DeviceRoute):
    """A route of devices that speak this version of tus, and say so."""

    async def check_caller(self, request: Request) -> None:
        spoken = request.headers.get("tus-resumable")
        if spoken != VERSION:
            headers = {"Tus-Version": VERSION, "Connection": "close"}
            raise HTTPException(412, f"Tus-Resumable is not {VERSION}", headers=headers)
        await super().check_caller(request)


async def _announced(tus_resumable: Annotated[Literal["1.0.0"], Header()]) -> None:
    """For OpenAPI; `TusRoute` has checked it."""


discovery = device_router(DeviceRoute, 403)
router = device_router(TusRoute, 403, 404, 412)
router.dependencies.append(Depends(_announced))
PART_BODY = {
    "requestBody": {
        "required": True,
        "content": {PART_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}
# Of 15 digits: each such number is below MAX_INTEGER, which an ObjectRef holds to.
Length = Annotated[str, Header(pattern=r"^[1-9][0-9]{0,14}$", description="Bytes of the whole update.")]
Offset = Annotated[str, Header(pattern=r"^(0|[1-9][0-9]{0,14})$", description="Where the part begins.")]
Metadata = Annotated[
    str, Header(description="sha256, a blank, and the digest of the whole update in base64.")
]
Checksum = Annotated[
    str | None, Header(description="sha256 or sha1, a blank, and the digest of the part in base64.")
]


@discovery.options("/assignments/{assignment_id}/uploads", status_code=204, response_class=Response)
def tell_tus(assignment_id: Identifier, service: ServiceOf) -> Response:
    told = {
        "Tus-Version": VERSION,
        "Tus-Resumable": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(service.settings.max_update_bytes),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUM_BYTES),
    }
    return Response(status_code=204, headers=told)


@router.post(
    "/assignments/{assignment_id}/uploads",
    status_code=201,
    response_class=Response,
    dependencies=[Depends(without_body)],  # tus has an extension by which a first part comes here
    responses=problems(409, 413),
)
def post_upload(
    assignment_id: Identifier,
    upload_length: Length,
    upload_metadata: Metadata,
    device_id: DeviceId,
    service: ServiceOf,
) -> Response:
    promised = ObjectRef(sha256=parse_metadata(upload_metadata), size_bytes=int(upload_length))
    upload = begin_upload(service, device_id, assignment_id, promised)
    location = {"Location": f"/device/v1/uploads/{upload.id}"}
    return Response(status_code=201, headers=location | _standing(upload))


@router.head("/uploads/{upload_id}", response_class=Response, responses=problems(410))
def head_upload(upload_id: Identifier, device_id: DeviceId, service: ServiceOf) -> Response:
    upload = find_upload(service, device_id, upload_id)
    promised = {
        "Upload-Length": str(upload.promised.size_bytes),
        "Upload-Metadata": sha256_pair(upload.promised.sha256),
    }
    return Response(headers=promised | _standing(upload))


@router.patch(
    "/uploads/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=PART_BODY,
    responses=problems(408, 409, 410, 413, 415, ChecksumMismatch.status),
)
async def patch_upload(
    upload_id: Identifier,
    upload_offset: Offset,
    request: Request,
    device_id: DeviceId,
    service: ServiceOf,
    upload_checksum: Checksum = None,
) -> Response:
    if request.headers.get("content-type") != PART_TYPE:
        raise HTTPException(415, f"a part is of type {PART_TYPE}", headers={"Connection": "close"})
    checksum = None if upload_checksum is None else parse_checksum(upload_checksum)
    with open_body(request, device_id):
        part = await run_in_threadpool(terms_of_part, service, device_id, upload_id, int(upload_offset))
        async with _received(request, part, checksum) as blob:
            upload = await run_in_threadpool(keep_part, service, part, blob)
    return Response(status_code=204, headers=_standing(upload))


@router.delete("/uploads/{upload_id}", status_code=204, response_class=Response)
def delete_upload(upload_id: Identifier, device_id: DeviceId, service: ServiceOf) -> Response:
    end_upload(service, device_id, upload_id)
    return Response(status_code=204)


def _standing(upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.offset_bytes),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }


@asynccontextmanager
async def _received(
    request: Request, part: PartTerms, checksum: tuple[str, str] | None
) -> AsyncIterator[IncomingBlob]:
    """The body in a temporary file, checked against both of its digests.

    Raises:
        ChecksumMismatch: another body than was signed, or than `Upload-Checksum` promises.
        BodyTooLarge: more bytes than the upload lacks.
    """
    with part.folder.receive() as blob:
        try:
            async for chunk in bounded_chunks(request, part.max_bytes):
                blob.write(chunk)
        except DigestMismatch as error:
            raise ChecksumMismatch(error.what, got=error.got, expected=error.expected) from error
        if checksum is not None and (got := await _digest(blob, checksum[0])) != checksum[1]:
            raise ChecksumMismatch(
                "the part does not match its Upload-Checksum", got=got, expected=checksum[1]
            )
        yield blob


async def _digest(blob: IncomingBlob, algorithm: str) -> str:
    if algorithm == "sha256":
        return blob.sha256
    with blob.reopened() as file:
        digest = await run_in_threadpool(hashlib.file_digest, file, algorithm)  # of a part: others go on
        return digest.hexdigest()
