"""Objects of the service, and the end of those that nothing refers to.

Every object has a row that tells when somebody last put it, or was about to refer to it. The row is touched
before the bytes are written, and an orphan's bytes go while its row is locked. So whoever comes to refer to
an object either finds its bytes, or writes them again after they went.

A sweep looks at the objects that were touched longest ago, so many at a time, and touches those that are
referred to: it comes back to them once all others had their turn, and what it costs does not grow with them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from numpy.typing import NDArray
from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from aggregator_service.artifacts.bundles import read_manifest
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.rollout_tables import RolloutDeviceRow
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    BundleRow,
    CheckpointRow,
    HandoutRow,
    ObjectRow,
    RoundRow,
)
from hetlora.messages.common import ObjectRef
from hetlora.states import LIVE_ADOPTION, LIVE_EVALUATION
from hetlora.stored_tensors import write_tensors

log = logging.getLogger(__name__)

OBJECTS_AT_A_TIME: Final = 500  # objects that one sweep looks at


def put_tensors(service: Service, tensors: Mapping[str, NDArray[Any]]) -> ObjectRef:
    """Store tensors by key as a safetensors object, without a copy of them in memory."""
    with service.objects.receive() as blob:
        write_tensors(tensors, blob.write)
        return keep(service, blob)


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
    """Delete objects that nothing refers to and nobody touched for long, of so many oldest ones."""
    now = service.clock()
    oldest = now - timedelta(seconds=service.settings.keep_orphans_seconds)
    longest_ago = select(ObjectRow.sha256).where(ObjectRow.touched_at < oldest).order_by(ObjectRow.touched_at)
    with service.database.read() as session:
        looked_at = set(session.scalars(longest_ago.limit(OBJECTS_AT_A_TIME)))
    if not looked_at:
        return
    orphans = _without_reference(service, looked_at)
    if named := looked_at - orphans:
        _touch_again(service, named, oldest, now)
    for sha256 in sorted(orphans):
        with service.database.write() as session:
            row = session.get(ObjectRow, sha256, with_for_update=True)
            if row is not None and row.touched_at < oldest:
                service.objects.remove(sha256)
                session.delete(row)
                log.info("object=%s orphan=removed", sha256)


def _without_reference(service: Service, digests: Collection[str]) -> set[str]:
    """Those of some objects that nothing names. Whoever is about to name one has touched it."""
    unnamed = select(ObjectRow.sha256).where(ObjectRow.sha256.in_(digests), *_UNNAMED)
    with service.database.read() as session:
        left = set(session.scalars(unnamed))
        bundles = session.scalars(select(BundleRow.digest)).all() if left else ()
    for digest in bundles:  # which files a bundle has is known to its manifest alone
        if left:
            left -= {entry.sha256 for entry in read_manifest(service, digest).files.values()}
    return left


def _touch_again(service: Service, digests: Collection[str], oldest: datetime, now: datetime) -> None:
    """Put off the next look at objects that are referred to."""
    still_old = select(ObjectRow).where(ObjectRow.sha256.in_(digests), ObjectRow.touched_at < oldest)
    with service.database.write() as session:
        # Where another worker is at them, too, neither waits for the other.
        for row in session.scalars(still_old.with_for_update(skip_locked=True)):
            row.touched_at = now


def _unnamed_by(column: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return ~exists().where(column == ObjectRow.sha256, *conditions)


# All that names an object, but for manifests: found by an index, or among few rows.
_UNNAMED: Final = (
    _unnamed_by(AdapterVersionRow.sha256),
    _unnamed_by(AdapterVersionRow.frozen_sha256),
    _unnamed_by(AdapterVersionRow.state_sha256),
    _unnamed_by(BundleRow.digest),
    _unnamed_by(HandoutRow.sha256),
    _unnamed_by(HandoutRow.frozen_sha256),
    _unnamed_by(CheckpointRow.sha256),
    _unnamed_by(EvaluationAssignmentRow.adapter_sha256, EvaluationAssignmentRow.state.in_(LIVE_EVALUATION)),
    _unnamed_by(RolloutDeviceRow.adapter_sha256, RolloutDeviceRow.state.in_(LIVE_ADOPTION)),
    _unnamed_by(
        AssignmentRow.adapter_sha256,
        AssignmentRow.round_id == RoundRow.id,
        RoundRow.updates_dropped.is_(False),
    ),
)
