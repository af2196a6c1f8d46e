"""The offer of an assignment, of any kind, as its device is told."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from aggregator_service.artifacts.bundles import get_bundle
from aggregator_service.rounds.masking import terms_of_masks
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.rollout_tables import RolloutDeviceRow
from aggregator_service.storage.tables import AssignmentRow, RankLimitRow, RunRow
from hetlora.messages.common import ObjectRef
from hetlora.messages.conditions import ANY_TIME
from hetlora.messages.device import CheckInAnswer, Offer, TaskKind

# The other half is for the download, the upload, and a device that trains more slowly than it thought.
TRAINING_SHARE: Final = 0.5


def max_rank_of(session: Session, run: RunRow, device_id: str) -> int:
    """The largest rank that a device may have in a run."""
    limit = session.get(RankLimitRow, (run.id, device_id))
    return limit.max_rank if limit else run.settings.max_rank


def offer_of(
    session: Session,
    kind: TaskKind,
    assignment: AssignmentRow | EvaluationAssignmentRow | RolloutDeviceRow,
    round_index: int,
    now: datetime,
    *,
    takes_back: bool = False,
) -> CheckInAnswer:
    """The answer that gives a device its assignment, of any kind."""
    run = session.get_one(RunRow, assignment.run_id)
    # What is left of the lease, not all of it: the device may have been killed in the middle of its work.
    left = assignment.lease_expires_at - now
    offer = Offer(
        kind=kind,
        assignment_id=assignment.id,
        run_id=run.id,
        round_index=round_index,
        bundle=_manifest_ref(session, run.bundle),
        variants=tuple(_manifest_ref(session, digest) for digest in run.settings.variants),
        min_rank=run.settings.min_rank,
        max_rank=assignment.max_rank,
        trained_rank=run.trained_rank,
        round_seconds=TRAINING_SHARE * left.total_seconds(),
        training=run.settings.training,
        lease_expires_at=assignment.lease_expires_at,
        conditions=ANY_TIME if kind == "adopt" else run.settings.conditions,
        masking=terms_of_masks(run.settings) if kind == "train" else None,
        takes_back=takes_back,
    )
    return CheckInAnswer(offer=offer, retry_after_seconds=0, reason="offer")


def _manifest_ref(session: Session, digest: str) -> ObjectRef:
    return ObjectRef(sha256=digest, size_bytes=get_bundle(session, digest).manifest_bytes)
