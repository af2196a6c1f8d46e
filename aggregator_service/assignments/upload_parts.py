"""The parts of an upload: each is kept by itself, the last one makes them an update (ADR 0012).

The last part is never kept: it completes the update, or is sent again. So an upload is complete exactly when
its update is in.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace

from sqlalchemy import delete, select

from aggregator_service.assignments.updates import UpdateTerms, keep_update, terms_of
from aggregator_service.assignments.uploads import (
    Upload,
    checked,
    describe,
    drop_upload,
    find_upload,
    own_upload,
)
from aggregator_service.service import Service
from aggregator_service.storage.blobs import CHUNK_BYTES, Blobs
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.tables import UploadPartRow
from hetlora.digest import verify_digest
from hetlora.errors import DigestMismatch, HetloraError, InputError, NotFound, OffsetMismatch, UploadGone
from hetlora.messages.common import ObjectRef
from hetlora.tus import smallest_part_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartTerms:
    """Where a part goes, and what the update must be that it belongs to."""

    upload: Upload
    terms: UpdateTerms

    @property
    def folder(self) -> Blobs:
        return self.terms.folder

    @property
    def max_bytes(self) -> int:
        return self.upload.missing_bytes


def terms_of_part(service: Service, device_id: str, upload_id: str, offset_bytes: int) -> PartTerms:
    """Where a part goes and what it belongs to, told before a byte of its body is read.

    Raises:
        NotFound, UploadGone: see `find_upload`.
        OffsetMismatch: it does not begin where the upload ends.
        StateConflict: see `updates.terms_of`.
    """
    upload = find_upload(service, device_id, upload_id)
    _check_offset(upload, offset_bytes)
    terms = terms_of(service, device_id, upload.assignment_id, upload.promised.sha256)
    return PartTerms(upload, terms)


def keep_part(service: Service, part: PartTerms, blob: IncomingBlob) -> Upload:
    """Keep a part, or complete the update with the last one; answers where the upload stands now.

    Raises:
        InputError: the part is smaller than parts may be. Or the update is refused, see
            `updates.keep_update`, or not the promised one (DigestMismatch), and the upload is dropped.
        NotFound, UploadGone, OffsetMismatch, StateConflict: the upload ended, or went on, while the part was
            on its way; UploadGone too where a stored part is lost.
    """
    upload = part.upload
    if not upload.missing_bytes:
        return upload
    if blob.size_bytes == upload.missing_bytes:
        return _complete(service, part, blob)
    smallest = smallest_part_bytes(upload.promised.size_bytes)
    if blob.size_bytes < smallest:
        raise InputError(
            "part is too small", got=f"{blob.size_bytes} bytes", expected=f"at least {smallest}, or the rest"
        )
    ref = service.uploads(upload.id).keep(blob)  # before the upload is locked: a store may take its time
    try:
        return _record(service, part, ref)
    except HetloraError:
        _drop_unused(service, upload.id, ref.sha256)
        raise


def _record(service: Service, part: PartTerms, ref: ObjectRef) -> Upload:
    """Make kept bytes the next part of an upload: the first that were brought for this place."""
    offset_bytes = part.upload.offset_bytes
    with service.database.write() as session:
        row, assignment = own_upload(session, part.terms.device_id, part.upload.id, lock=True)
        upload = checked(describe(session, row, assignment), service.clock())
        _check_offset(upload, offset_bytes)
        session.add(
            UploadPartRow(
                upload_id=upload.id, offset_bytes=offset_bytes, size_bytes=ref.size_bytes, sha256=ref.sha256
            )
        )
    return replace(upload, offset_bytes=offset_bytes + ref.size_bytes)


def _drop_unused(service: Service, upload_id: str, sha256: str) -> None:
    """Delete a part that came too late, unless another place of the upload has the same bytes.

    Should a twin of it come at this moment, the upload lacks a part, and `_lost` has it begin anew.
    """
    of_these_bytes = select(UploadPartRow.upload_id).where(
        UploadPartRow.upload_id == upload_id, UploadPartRow.sha256 == sha256
    )
    with service.database.read() as session:
        used = session.scalar(of_these_bytes.limit(1)) is not None
    if not used:
        service.uploads(upload_id).remove(sha256)


def _check_offset(upload: Upload, offset_bytes: int) -> None:
    if upload.offset_bytes != offset_bytes:
        raise OffsetMismatch(
            "the part does not begin where the upload ends", got=offset_bytes, expected=upload.offset_bytes
        )


def _complete(service: Service, part: PartTerms, last: IncomingBlob) -> Upload:
    with service.database.read() as session:
        # The parts first: where a twin of this request completes the upload meanwhile, it is told below.
        of_upload = select(UploadPartRow.sha256).where(UploadPartRow.upload_id == part.upload.id)
        stored = session.scalars(of_upload.order_by(UploadPartRow.offset_bytes)).all()
        upload = describe(session, *own_upload(session, part.terms.device_id, part.upload.id))
    if not upload.missing_bytes:
        return upload
    _check_offset(upload, part.upload.offset_bytes)
    with part.folder.receive() as whole:
        try:
            for sha256 in stored:
                _pour(service.uploads(upload.id), sha256, whole)
        except (NotFound, DigestMismatch) as error:
            return _lost(service, part, error)
        _append(whole, last)
        try:
            verify_digest("the update", got=whole.sha256, expected=upload.promised.sha256)
            keep_update(service, part.terms, whole)
        except InputError:
            drop_upload(service, upload.id)
            raise
    return _completed(service, part)


def _pour(folder: Blobs, sha256: str, into: IncomingBlob) -> None:
    digest = hashlib.sha256()
    for chunk in folder.chunks(sha256):
        digest.update(chunk)
        into.write(chunk)
    verify_digest("a stored part of an upload", got=digest.hexdigest(), expected=sha256)


def _append(whole: IncomingBlob, last: IncomingBlob) -> None:
    with last.reopened() as file:
        while chunk := file.read(CHUNK_BYTES):
            whole.write(chunk)


def _completed(service: Service, part: PartTerms) -> Upload:
    """Note that the update is in; nothing more comes into the upload's folder, which can go then."""
    with service.database.write() as session:
        row, assignment = own_upload(session, part.terms.device_id, part.upload.id, lock=True)
        row.completed = True
        session.execute(delete(UploadPartRow).where(UploadPartRow.upload_id == row.id))
        upload = describe(session, row, assignment)
    service.uploads(upload.id).drop()
    return upload


def _lost(service: Service, part: PartTerms, error: Exception) -> Upload:
    """Parts are gone as the upload ended meanwhile, or the store lost them: then it begins anew."""
    upload = find_upload(service, part.terms.device_id, part.upload.id)
    if upload.missing_bytes:
        log.error("upload=%s parts=lost error=%s", upload.id, error)
        drop_upload(service, upload.id)
        raise UploadGone("a part of the upload cannot be read any more", expected="another upload") from error
    return upload
