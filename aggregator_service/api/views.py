"""Rows as operators see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, cast

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from aggregator_service.privacy.ledger import spent_by
from aggregator_service.rounds import evaluations
from aggregator_service.screens.suspensions import rule_of
from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.operator_tables import AuditRow
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    BundleRow,
    DeviceRow,
    PopulationRow,
    ReplacedKeyRow,
    RoundRow,
    RunRow,
    TransitionRow,
    frozen_of,
)
from hetlora.messages.evaluation import EvaluationStatus
from hetlora.messages.fleet import DeviceDetails, PopulationStatus, ReplacedKey, Subject, Transition
from hetlora.messages.management import (
    AdapterVersionStatus,
    AssignmentStatus,
    BundleStatus,
    RoundStatus,
    RunStatus,
)
from hetlora.messages.operators import AuditEntry
from hetlora.states import LIVE_ASSIGNMENT, AssignmentState

_BY_STATE: Final = (
    select(AssignmentRow.state, func.count())
    .where(AssignmentRow.round_id == bindparam("round"))
    .group_by(AssignmentRow.state)
)


def population_status(session: Session, row: PopulationRow) -> PopulationStatus:
    devices = session.scalar(select(func.count()).where(DeviceRow.population == row.name)) or 0
    return PopulationStatus(
        name=row.name,
        admission=row.admission,
        token_expires_at=row.token_expires_at,
        devices=devices,
        created_at=row.created_at,
        suspension=rule_of(session, row.name),
    )


def device_details(session: Session, row: DeviceRow) -> DeviceDetails:
    return DeviceDetails(
        device_id=row.id,
        name=row.name,
        population=row.population,
        state=row.state,
        capabilities=row.capabilities,
        last_contact_at=row.last_contact_at,
        labels=row.labels or {},
    )


def replaced_key(session: Session, row: ReplacedKeyRow) -> ReplacedKey:
    return ReplacedKey(public_key=row.public_key, replaced_at=row.replaced_at)


def bundle_status(session: Session, row: BundleRow) -> BundleStatus:
    return BundleStatus(
        digest=row.digest,
        base_model=row.base_model,
        task=row.task,
        max_rank=row.max_rank,
        size_bytes=row.size_bytes,
    )


def run_status(session: Session, row: RunRow) -> RunStatus:
    return RunStatus(
        run_id=row.id,
        population=row.population,
        bundle=row.bundle,
        state=row.state,
        reason=row.reason,
        settings=row.settings,
        rounds_committed=row.rounds_committed,
        adapter_version=row.adapter_version,
        created_at=row.created_at,
        name=row.name,
        request_sha256=row.request_sha256,
        cloned_from=row.cloned_from,
    )


def round_status(session: Session, row: RoundRow) -> RoundStatus:
    found = session.execute(_BY_STATE, {"round": row.id})
    counts = Counter({state: count for state, count in found})
    accepted = counts[AssignmentState.ACCEPTED]
    return RoundStatus(
        round_index=row.round_index,
        attempt=row.attempt,
        state=row.state,
        reason=row.reason,
        offered=sum(counts[state] for state in LIVE_ASSIGNMENT)
        + accepted
        + counts[AssignmentState.DISCARDED],
        accepted=accepted,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def assignment_statuses(session: Session, rows: Sequence[AssignmentRow]) -> list[AssignmentStatus]:
    """Assignments, whose devices are asked for at once."""
    of = DeviceRow.id.in_({row.device_id for row in rows})
    names = {key: name for key, name in session.execute(select(DeviceRow.id, DeviceRow.name).where(of))}
    return [_assignment_status(session, row, names[row.device_id]) for row in rows]


def _assignment_status(session: Session, row: AssignmentRow, device_name: str) -> AssignmentStatus:
    work = session.get_one(RoundRow, row.round_id)
    report = row.report
    return AssignmentStatus(
        assignment_id=row.id,
        device_id=row.device_id,
        device_name=device_name,
        round_index=work.round_index,
        attempt=work.attempt,
        state=row.state,
        reason=row.reason,
        rank=row.rank,
        variant=row.variant,
        updated_rank=row.updated_rank,
        aggregation_weight=row.aggregation_weight,
        staleness=row.staleness,
        first_loss=report.first_loss if report else None,
        last_loss=report.last_loss if report else None,
        training_seconds=report.training_seconds if report else None,
        peak_memory_bytes=report.peak_memory_bytes if report else None,
        downloaded_bytes=report.downloaded_bytes if report else None,
        uploaded_bytes=row.update_bytes,
        held_out_loss_before=report.held_out_loss_before if report else None,
        held_out_loss_after=report.held_out_loss_after if report else None,
    )


def adapter_version_status(session: Session, row: AdapterVersionRow) -> AdapterVersionStatus:
    return AdapterVersionStatus(
        version=row.id,
        run_id=row.run_id,
        round_index=row.round_index,
        state=row.state,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        update_count=row.update_count,
        frozen=frozen_of(row),
        figures=row.figures or {},
        evaluation=_evaluation_status(session, row.id),
        privacy=spent_by(session, row.run_id, row.round_index),
        created_at=row.created_at,
    )


def _evaluation_status(session: Session, version: str) -> EvaluationStatus | None:
    row = session.get(EvaluationRow, version)
    if row is None:
        return None
    return EvaluationStatus(
        state=row.state,
        reason=row.reason,
        devices=row.devices,
        reports=evaluations.count(session, row.id, evaluations.ACCEPTED),
        figures=row.figures,
        window_closes_at=row.window_closes_at,
        ended_at=row.ended_at,
    )


def transition(session: Session, row: TransitionRow) -> Transition:
    return Transition(
        subject=cast(Subject, row.subject),
        subject_id=row.subject_id,
        old=row.old,
        new=row.new,
        reason=row.reason,
        at=row.at,
    )


def audit_entry(session: Session, row: AuditRow) -> AuditEntry:
    return AuditEntry(
        entry_id=row.id,
        at=row.at,
        key_id=row.key_id,
        key_name=row.key_name,
        action=row.action,
        subject=row.subject,
        status=row.status,
        request_id=row.request_id,
        source=row.source,
    )
