"""The end of handouts that no device can ask for any more.

A device is sent the version that it was offered: a run's newest, or one that an open evaluation scores, or
that a rollout asks devices to adopt. (One that is rolled back to is made again for who comes late.) Once that
is another, and all who were offered the one before have ended, nobody comes for its handouts again.
Commits and uploads do not go by these, but by what assignments name, which stays for as long as updates do.

Their objects are touched first: whoever restores a database that still has the rows finds these, too, if the
copy of the store was made within the time that orphans stay.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import delete, exists, or_, select

from aggregator_service.artifacts.objects import touch
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.locks import lock_run_if_free
from aggregator_service.storage.rollout_tables import RolloutRow
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, HandoutRow, RunRow
from hetlora.states import LIVE_ASSIGNMENT, EvaluationState, RunState, is_final

log = logging.getLogger(__name__)

VERSIONS_AT_A_TIME: Final = 50  # versions that one sweep is done with
_ENDED: Final = [state for state in RunState if is_final(state)]
_OVER: Final = (
    select(HandoutRow.version, AdapterVersionRow.run_id)
    .join(AdapterVersionRow, AdapterVersionRow.id == HandoutRow.version)
    .join(RunRow, RunRow.id == AdapterVersionRow.run_id)
    .where(
        or_(RunRow.adapter_version != HandoutRow.version, RunRow.state.in_(_ENDED)),
        ~exists().where(
            AssignmentRow.base_version == HandoutRow.version, AssignmentRow.state.in_(LIVE_ASSIGNMENT)
        ),
        ~exists().where(EvaluationRow.id == HandoutRow.version, EvaluationRow.state == EvaluationState.OPEN),
        ~exists().where(RolloutRow.version == HandoutRow.version, RolloutRow.asks),
    )
    .distinct()
)


def drop_handouts(service: Service) -> None:
    """Delete the handouts of versions that are over; their objects go as orphans do."""
    with service.database.read() as session:
        found = session.execute(_OVER.limit(VERSIONS_AT_A_TIME)).all()
    for version, run_id in found:
        _touch_objects(service, version)
        with service.database.write() as session:
            # Under the run's lock nobody is offered it, or starts on it; whoever was before is seen. A run
            # that somebody is at work on waits for the next sweep.
            over = _OVER.where(HandoutRow.version == version)
            if lock_run_if_free(session, run_id) is None or session.execute(over).first() is None:
                continue
            session.execute(delete(HandoutRow).where(HandoutRow.version == version))
        log.info("version=%s handouts=removed", version)


def _touch_objects(service: Service, version: str) -> None:
    named = select(HandoutRow.sha256, HandoutRow.frozen_sha256).where(HandoutRow.version == version)
    with service.database.read() as session:
        rows = session.execute(named).all()
    touch(service, [sha256 for row in rows for sha256 in row if sha256 is not None])
