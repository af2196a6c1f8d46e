"""Uploads in parts (tus 1.0, ADR 0012): begun, asked about, ended. Parts: see `upload_parts.py`.

An upload's row is there before its folder of parts, and gone before it; each part is in the folder before its
row. Whoever records a part, or ends an upload, locks its row. So a folder without a row is of an upload that
ended, whenever it is found; a part that was on its way may make it anew, for the next sweep.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from aggregator_service.assignments.assignments import lock_assignment, refuse_state
from aggregator_service.assignments.updates import terms_of
from aggregator_service.service import Service
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.tables import AssignmentRow, UploadPartRow, UploadRow
from hetlora.errors import BodyTooLarge, NotFound, UploadGone
from hetlora.messages.common import ObjectRef
from hetlora.states import STARTED_ASSIGNMENT

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upload:
    """Where an upload stands: what was promised, and how much of it is in."""

    id: str
    assignment_id: str
    promised: ObjectRef
    offset_bytes: int
    expires_at: datetime

    @property
    def missing_bytes(self) -> int:
        return self.promised.size_bytes - self.offset_bytes


def begin_upload(service: Service, device_id: str, assignment_id: str, promised: ObjectRef) -> Upload:
    """Make room for an update that comes in parts; again for the same one answers how far it has come.

    An update that is in already is an upload that lacks nothing. One upload more than a device may have ends
    the one that it began first.

    Raises:
        NotFound, StateConflict: see `updates.terms_of`.
        BodyTooLarge: the update is larger than the assignment's may be.
    """
    terms = terms_of(service, device_id, assignment_id, promised.sha256)
    if promised.size_bytes > terms.max_bytes:
        raise BodyTooLarge(
            "update is too large",
            got=f"{promised.size_bytes} bytes announced",
            expected=f"up to {terms.max_bytes} bytes",
        )
    now = service.clock()
    with service.database.write() as session:
        lock_device(session, device_id)  # whose uploads are counted
        assignment, _ = lock_assignment(session, device_id, assignment_id, now)
        is_in = assignment.update_sha256 == promised.sha256
        if assignment.state not in STARTED_ASSIGNMENT and not is_in:
            raise refuse_state(assignment, "a started assignment")
        row = _find(session, assignment_id, promised, is_in)
        ended = []
        if row is None:
            ended = _make_room(session, device_id, service.settings.max_open_uploads)
            row = _new(assignment, promised, is_in, now)
            session.add(row)
        upload = describe(session, row, assignment)
    for upload_id in ended:
        service.uploads(upload_id).drop()
    return upload


def _find(session: Session, assignment_id: str, promised: ObjectRef, completed: bool) -> UploadRow | None:
    return session.scalar(
        select(UploadRow)
        .where(UploadRow.assignment_id == assignment_id, UploadRow.sha256 == promised.sha256)
        .where(UploadRow.length_bytes == promised.size_bytes, UploadRow.completed.is_(completed))
    )


def _new(assignment: AssignmentRow, promised: ObjectRef, completed: bool, now: datetime) -> UploadRow:
    return UploadRow(
        id=new_id(now),
        assignment_id=assignment.id,
        device_id=assignment.device_id,
        sha256=promised.sha256,
        length_bytes=promised.size_bytes,
        completed=completed,
    )


def _make_room(session: Session, device_id: str, most: int) -> list[str]:
    of_device = select(UploadRow.id).where(UploadRow.device_id == device_id).order_by(UploadRow.id)
    open_ids = session.scalars(of_device).all()
    ended = [*open_ids[: max(0, len(open_ids) - most + 1)]]
    for upload_id in ended:
        _delete(session, upload_id)
    return ended


def find_upload(service: Service, device_id: str, upload_id: str) -> Upload:
    """An upload of this device.

    Raises:
        NotFound: no such upload, or another device's.
        UploadGone: the lease ran out before it was complete.
    """
    with service.database.read() as session:
        row, assignment = own_upload(session, device_id, upload_id)
        return checked(describe(session, row, assignment), service.clock())


def end_upload(service: Service, device_id: str, upload_id: str) -> None:
    """Drop an upload, complete or not; an update that is in stays.

    Raises:
        NotFound: no such upload, or another device's.
    """
    with service.database.read() as session:
        own_upload(session, device_id, upload_id)
    drop_upload(service, upload_id)


def drop_upload(service: Service, upload_id: str) -> None:
    """Drop an upload's rows, and then its parts."""
    with service.database.write() as session:
        _delete(session, upload_id)
    service.uploads(upload_id).drop()


def _delete(session: Session, upload_id: str) -> None:
    row = session.get(UploadRow, upload_id, with_for_update=True)  # waits for a part that is being kept
    if row is not None:
        session.execute(delete(UploadPartRow).where(UploadPartRow.upload_id == upload_id))
        session.delete(row)


def own_upload(
    session: Session, device_id: str, upload_id: str, *, lock: bool = False
) -> tuple[UploadRow, AssignmentRow]:
    """An upload of this device, and its assignment; locked, nobody else brings parts or ends it.

    Raises:
        NotFound: no such upload, or another device's.
    """
    row = session.get(UploadRow, upload_id, with_for_update=lock)
    if row is None or row.device_id != device_id:
        raise NotFound("this device has no such upload", got=upload_id)
    return row, session.get_one(AssignmentRow, row.assignment_id)


def describe(session: Session, row: UploadRow, assignment: AssignmentRow) -> Upload:
    """Where an upload stands, as its rows tell.

    Raises:
        NotFound: it was dropped meanwhile.
    """
    # In one statement, as another process may complete the upload between two.
    size_bytes = func.coalesce(func.sum(UploadPartRow.size_bytes), 0)
    found = session.execute(
        select(UploadRow.completed, size_bytes)
        .outerjoin(UploadPartRow, UploadPartRow.upload_id == UploadRow.id)
        .where(UploadRow.id == row.id)
        .group_by(UploadRow.id)
    ).one_or_none()
    if found is None:
        raise NotFound("this device has no such upload", got=row.id)
    completed, there_bytes = found
    return Upload(
        id=row.id,
        assignment_id=row.assignment_id,
        promised=ObjectRef(sha256=row.sha256, size_bytes=row.length_bytes),
        offset_bytes=row.length_bytes if completed else int(there_bytes),
        expires_at=assignment.lease_expires_at,
    )


def checked(upload: Upload, now: datetime) -> Upload:
    """The same upload, if it may go on.

    Raises:
        UploadGone: the lease ran out before it was complete.
    """
    if upload.missing_bytes and upload.expires_at <= now:
        raise UploadGone("the upload expired with its assignment's lease", got=f"{upload.expires_at}")
    return upload


def sweep_uploads(service: Service, now: datetime) -> None:
    """Drop uploads whose assignment has no use for them, and parts whose upload's rows went without them."""
    folders = service.store.folders("uploads")  # before the rows, which are there first
    over = or_(AssignmentRow.state.not_in(STARTED_ASSIGNMENT), AssignmentRow.lease_expires_at <= now)
    of_over = select(UploadRow.id).join(AssignmentRow, UploadRow.assignment_id == AssignmentRow.id)
    with service.database.read() as session:
        known = set(session.scalars(select(UploadRow.id)))
        ended = session.scalars(of_over.where(over)).all()
    for upload_id in ended:
        drop_upload(service, upload_id)
        log.info("upload=%s event=dropped", upload_id)
    for upload_id in folders - known:
        service.uploads(upload_id).drop()
        log.info("upload=%s parts=removed", upload_id)
