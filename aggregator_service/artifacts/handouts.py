"""What devices are sent: one handout of a version for each rank, or for each device where its seed counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray
from sqlalchemy.exc import IntegrityError

from aggregator_service.aggregation.rule import PLAIN, Handout
from aggregator_service.aggregation.rules import RULES
from aggregator_service.aggregation.stacks import unstacked
from aggregator_service.artifacts.adapters import opened, put_frozen, read_state
from aggregator_service.artifacts.objects import put_tensors
from aggregator_service.service import Service
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    HandoutRow,
    RunRow,
    frozen_of,
)
from aggregator_service.storage.turn import turn
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Adaptation
from hetlora.messages.management import RunSettings
from hetlora.plan_adapter import sent_tensors, sparse_tensors
from hetlora.sent_parts import at_precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredHandout:
    """A handout as objects on disk."""

    adapter: ObjectRef
    frozen: ObjectRef | None
    adaptation: Adaptation


def handout(service: Service, version_id: str, rank: int, seed: int) -> StoredHandout:
    """What a version gives a device of this rank and seed.

    It is kept in the database unless it depends on the seed: then its adaptation says which ranks were drawn.

    Raises:
        ServiceFailed: see `reading_own`.
        RankOutOfRange: a rank that the rule does not serve.
        UnavailableError: other handouts take too long.
    """
    stored = _stored(service, version_id, rank)
    if stored is not None:
        return stored
    patience = service.settings.database_timeout_seconds
    with turn(service.handing_out, patience, "made handouts"):  # all devices of a round may begin at once
        return _stored(service, version_id, rank) or _make(service, version_id, rank, seed)


def _stored(service: Service, version_id: str, rank: int) -> StoredHandout | None:
    with service.database.read() as session:
        row = session.get(HandoutRow, (version_id, rank))
    if row is None:
        return None
    stored = _of_row(row)
    named = filter(None, (stored.adapter, stored.frozen))
    whole = all(service.objects.size_bytes(ref.sha256) == ref.size_bytes for ref in named)
    return stored if whole else None  # made again: the same bytes


def _make(service: Service, version_id: str, rank: int, seed: int) -> StoredHandout:
    with service.database.read() as session:
        version = session.get_one(AdapterVersionRow, version_id)
        run = session.get_one(RunRow, version.run_id)
    rule = opened(run.settings, read_state(service, run, version))
    made = _put(service, _at_precision(rule.distribute(rank, seed), run.settings))
    if made.adaptation.ranks is None:
        _remember(service, _row_of(made, version_id, rank))
    return made


def _at_precision(made: Handout, settings: RunSettings) -> Handout:
    same = RULES[type(settings.rule)].same_coordinates
    precision = settings.training.upload_precision
    return replace(made, adaptation=at_precision(made.adaptation, precision, same_coordinates=same))


def _remember(service: Service, row: HandoutRow) -> None:
    try:
        with service.database.write() as session:
            session.merge(row)  # of one that was lost, which on another processor may have other last bits
    except IntegrityError:  # another process made it too, and the same bytes
        log.info("version=%s rank=%d handout=known", row.version, row.rank)


def _put(service: Service, made: Handout) -> StoredHandout:
    adapter = put_tensors(service, handout_tensors(made))
    return StoredHandout(adapter, put_frozen(service, made.frozen), made.adaptation)


def handout_tensors(made: Handout) -> Mapping[str, NDArray[Any]]:
    """The adapter of a handout as it travels, by key."""
    adapter = unstacked(made.adapter)
    if made.density < 0.5:  # an entry takes its place beside its value: twice the bytes
        return sparse_tensors(adapter, made.density)
    return sent_tensors(adapter, made.cores)


def _row_of(made: StoredHandout, version_id: str, rank: int) -> HandoutRow:
    return HandoutRow(
        version=version_id,
        rank=rank,
        sha256=made.adapter.sha256,
        size_bytes=made.adapter.size_bytes,
        frozen_sha256=made.frozen.sha256 if made.frozen else None,
        frozen_bytes=made.frozen.size_bytes if made.frozen else None,
        adaptation=made.adaptation,
    )


def _of_row(row: HandoutRow) -> StoredHandout:
    adapter = ObjectRef(sha256=row.sha256, size_bytes=row.size_bytes)
    return StoredHandout(adapter, frozen_of(row), row.adaptation or PLAIN)
