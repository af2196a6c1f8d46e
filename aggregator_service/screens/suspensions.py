"""Devices that are suspended by themselves, where their population has a rule for it.

The round worker judges each device with an update that came into quarantine since, in a transaction of its
own: a device is locked before a run, and updates come into quarantine under the lock of the run. A kill
between leaves the row unjudged, and the next tick goes on with it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from aggregator_service.devices.admission import end_work_of
from aggregator_service.screens.reputation import recent
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.screen_tables import QuarantineRow, SuspensionRuleRow
from aggregator_service.storage.tables import DeviceRow, PopulationRow, TransitionRow
from aggregator_service.storage.transitions import move
from hetlora.errors import NotFound
from hetlora.messages.quarantine import SuspensionRule, SuspensionSetting
from hetlora.states import DeviceState

log = logging.getLogger(__name__)

DEVICES_AT_A_TIME: Final = 100  # that one tick judges
_UNJUDGED: Final = QuarantineRow.judged.is_(False)


def judge_devices(service: Service) -> None:
    """Suspend devices of which too many of the newest updates were quarantined."""
    due = select(QuarantineRow.device_id).where(_UNJUDGED).distinct().limit(DEVICES_AT_A_TIME)
    with service.database.read() as session:
        device_ids = sorted(session.scalars(due))
    for device_id in device_ids:
        with service.database.write() as session:
            device = lock_device(session, device_id)
            of_device = update(QuarantineRow).where(_UNJUDGED, QuarantineRow.device_id == device_id)
            session.execute(of_device.values(judged=True))
            _judge(session, device, service.clock())


def _judge(session: Session, device: DeviceRow, now: datetime) -> None:
    rule = session.get(SuspensionRuleRow, device.population)
    if rule is None or device.state is not DeviceState.ACCEPTED:
        return
    updates, quarantined = recent(session, device.id, rule.within_updates, _accepted_at(session, device.id))
    if quarantined < rule.quarantines:
        return
    reason = f"{quarantined} of its newest {updates} updates were quarantined"
    move(session, device, DeviceState.SUSPENDED, reason, now)
    end_work_of(session, device, now)
    log.info("device=%s suspended=by_rule quarantined=%d updates=%d", device.id, quarantined, updates)


def _accepted_at(session: Session, device_id: str) -> datetime | None:
    """When the device was last accepted: an operator who did it anew has seen what was before."""
    accepted = select(func.max(TransitionRow.at)).where(
        TransitionRow.subject == DeviceRow.subject,
        TransitionRow.subject_id == device_id,
        TransitionRow.new == DeviceState.ACCEPTED.value,
    )
    return session.scalar(accepted)


def set_rule(service: Service, population: str, message: SuspensionSetting) -> None:
    """Give a population a rule for suspensions, or none; what was judged before is not judged again.

    Raises:
        NotFound: no such population.
    """
    with service.database.write() as session:
        if session.get(PopulationRow, population, with_for_update=True) is None:
            raise NotFound("no such population", got=population)
        row = session.get(SuspensionRuleRow, population)
        if message.rule is None:
            if row is not None:
                session.delete(row)
            return
        told = message.rule.model_dump()
        session.merge(SuspensionRuleRow(population=population, **told))


def rule_of(session: Session, population: str) -> SuspensionRule | None:
    """The rule for suspensions of a population, if it has one."""
    row = session.get(SuspensionRuleRow, population)
    if row is None:
        return None
    return SuspensionRule(quarantines=row.quarantines, within_updates=row.within_updates)
