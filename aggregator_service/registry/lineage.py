"""What an adapter version came from, read off its run, its round and the round's assignments: no copies."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator_service.artifacts.bundles import read_manifest
from aggregator_service.privacy.ledger import spent_by
from aggregator_service.registry.versions import get_version
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow, frozen_of
from hetlora.messages.common import ObjectRef
from hetlora.messages.registry import Lineage, RankCount, RegistryEntry
from hetlora.states import AssignmentState, RoundState


def registry_entry(service: Service, version: str) -> RegistryEntry:
    """What there is to sign of a version: facts alone that no later write changes.

    Raises:
        NotFound: no such version.
        ServiceFailed: see `reading_own`.
    """
    with service.database.read() as session:
        row = get_version(session, version)
        run = session.get_one(RunRow, row.run_id)
        work = _round_of(session, row)
        cohort_size = 0 if work is None else _cohort_size(session, work)
        # Ranks after self-pruning follow from what devices hold, and the noise does not cover them.
        told = work is not None and run.settings.privacy is None
        ranks = _ranks(session, work) if work is not None and told else ()
        privacy = spent_by(session, run.id, row.round_index)
    manifest = read_manifest(service, run.bundle)
    lineage = Lineage(
        population=run.population,
        base_model=manifest.base_model.id,
        base_sha256=manifest.base_model.sha256,
        bundle=run.bundle,
        run_id=run.id,
        seed=run.settings.seed,
        round_index=row.round_index,
        attempt=None if work is None else work.attempt,
        made_from=None if work is None else work.base_version,
        rule=run.settings.rule,
        server_optimizer=run.settings.server_optimizer,
        defence=run.settings.defence,
        cohort_size=cohort_size,
        update_count=row.update_count,
        ranks=ranks,
        privacy=privacy,
    )
    return RegistryEntry(
        version=row.id,
        adapter=ObjectRef(sha256=row.sha256, size_bytes=row.size_bytes),
        frozen=frozen_of(row),
        figures=row.figures or {},
        lineage=lineage,
        created_at=row.created_at,
    )


def _round_of(session: Session, row: AdapterVersionRow) -> RoundRow | None:
    """The attempt that made a version; None of the initial adapter."""
    of_index = RoundRow.run_id == row.run_id, RoundRow.round_index == row.round_index
    return session.scalars(select(RoundRow).where(*of_index, RoundRow.state == RoundState.COMMITTED)).first()


def _cohort_size(session: Session, work: RoundRow) -> int:
    return session.scalar(select(func.count()).where(AssignmentRow.round_id == work.id)) or 0


def _ranks(session: Session, work: RoundRow) -> tuple[RankCount, ...]:
    merged = AssignmentRow.round_id == work.id, AssignmentRow.state == AssignmentState.ACCEPTED
    both = AssignmentRow.rank, AssignmentRow.updated_rank
    taken, updated = Counter[int](), Counter[int]()
    for rank, updated_rank, count in session.execute(
        select(*both, func.count()).where(*merged).group_by(*both)
    ):
        assert rank is not None, "or it was not accepted"
        assert updated_rank is not None
        taken[rank] += count
        updated[updated_rank] += count
    ranks = sorted(taken.keys() | updated.keys())
    return tuple(RankCount(rank=rank, taken=taken[rank], updated=updated[rank]) for rank in ranks)
