"""Objects of the service, and the end of those that nothing refers to.

Every object has a row that tells when somebody last put it, or was about to refer to it. The row is touched
before the bytes are written, and an orphan's bytes go while its row is locked. So whoever comes to refer to
an object either finds its bytes, or writes them again after they went.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from aggregator_service.artifacts.bundles import read_manifest
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    BundleRow,
    CheckpointRow,
    HandoutRow,
    ObjectRow,
    RoundRow,
)
from hetlora.digest import sha256_of
from hetlora.messages.common import ObjectRef
from hetlora.states import LIVE_EVALUATION

log = logging.getLogger(__name__)


def put(service: Service, data: bytes) -> ObjectRef:
    """Store bytes as an object that whoever asks may refer to."""
    touch(service, [sha256_of(data)])
    return service.objects.put(data)


def keep(service: Service, blob: IncomingBlob) -> ObjectRef:
    """Store what came in as an object; an equal one is replaced."""
    touch(service, [blob.sha256])
    return service.objects.keep(blob)


def touch(service: Service, digests: Iterable[str]) -> None:
    """Keep objects from being swept for as long as an orphan stays."""
    for sha256 in sorted(set(digests)):  # in one order, as each is locked
        try:
            _touch(service, sha256)
        except IntegrityError:  # another process made its row at the same moment
            _touch(service, sha256)


def _touch(service: Service, sha256: str) -> None:
    with service.database.write() as session:
        row = session.get(ObjectRow, sha256, with_for_update=True)
        if row is None:
            session.add(ObjectRow(sha256=sha256, touched_at=service.clock()))
        else:
            row.touched_at = service.clock()


def drop_orphans(service: Service) -> None:
    """Delete objects that nothing refers to and nobody touched for long."""
    oldest = service.clock() - timedelta(seconds=service.settings.keep_orphans_seconds)
    old = ObjectRow.touched_at < oldest
    with service.database.read() as session:
        candidates = set(session.scalars(select(ObjectRow.sha256).where(old)))
    for sha256 in sorted(candidates - _referred(service) if candidates else ()):
        with service.database.write() as session:
            row = session.get(ObjectRow, sha256, with_for_update=True)
            if row is not None and row.touched_at < oldest:
                service.objects.remove(sha256)
                session.delete(row)
                log.info("object=%s orphan=removed", sha256)


def _referred(service: Service) -> set[str]:
    """All objects that a row names. Whoever is about to name another has touched it."""
    with service.database.read() as session:
        bundles = session.scalars(select(BundleRow.digest)).all()
        named = {
            *session.scalars(select(AdapterVersionRow.sha256)),
            *session.scalars(select(AdapterVersionRow.frozen_sha256)),
            *session.scalars(select(AdapterVersionRow.state_sha256)),
            *session.scalars(select(HandoutRow.sha256)),
            *session.scalars(select(HandoutRow.frozen_sha256)),
            *session.scalars(select(CheckpointRow.sha256)),
            *session.scalars(
                select(EvaluationAssignmentRow.adapter_sha256).where(
                    EvaluationAssignmentRow.state.in_(LIVE_EVALUATION)
                )
            ),
            *session.scalars(
                select(AssignmentRow.adapter_sha256)
                .join(RoundRow, AssignmentRow.round_id == RoundRow.id)
                .where(RoundRow.updates_dropped.is_(False))
            ),
        }
    files = {entry.sha256 for digest in bundles for entry in read_manifest(service, digest).files.values()}
    return {str(sha256) for sha256 in named if sha256 is not None} | {*bundles} | files
