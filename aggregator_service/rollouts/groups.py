"""Labels of devices, and groups by conditions over what is known of them."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.operators.idempotency import IdempotencyKey, begin, made_before
from aggregator_service.rollouts.filters import holds_for
from aggregator_service.service import Service
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.rollout_tables import GroupRow
from aggregator_service.storage.tables import DeviceRow, PopulationRow
from hetlora.errors import NotFound, SettingsError, StateConflict
from hetlora.messages.rollouts import MAX_LABELS, DeviceLabels, GroupCreate, LabelChange


def label_device(service: Service, device_id: str, change: LabelChange) -> DeviceLabels:
    """Give and take labels of a device; again changes nothing.

    Raises:
        NotFound: no such device.
        SettingsError: it would have more than `MAX_LABELS`.
    """
    with service.database.write() as session:
        device = lock_device(session, device_id)
        labels = {**(device.labels or {}), **change.set}
        labels = {key: labels[key] for key in sorted(labels) if key not in change.remove}
        if len(labels) > MAX_LABELS:
            raise SettingsError("labels of a device", got=len(labels), expected=f"up to {MAX_LABELS}")
        device.labels = labels
    return DeviceLabels(device_id=device_id, labels=labels)


def create_group(service: Service, message: GroupCreate, asked: IdempotencyKey | None = None) -> str:
    """Make a group and answer its id.

    Raises:
        NotFound: no such population.
        StateConflict: the population has a group of this name.
        IdempotencyKeyReused: see `idempotency.begin`.
    """
    now = service.clock()
    with service.database.read() as session:
        made = made_before(session, asked, message, now)
        if made is not None:
            return made
        if session.get(PopulationRow, message.population) is None:
            raise NotFound("no such population", got=message.population)
    try:
        with service.database.write() as session:
            attempt = begin(session, asked, message, now)
            if attempt.made is not None:
                return attempt.made
            row = GroupRow(
                id=new_id(now),
                population=message.population,
                name=message.name,
                filter=message.filter,
                created_at=now,
            )
            session.add(row)
            attempt.note(row.id)
            return row.id
    except IntegrityError as error:
        raise StateConflict(
            "the population has a group of this name", got=message.name, expected="another name"
        ) from error


def get_group(session: Session, group_id: str) -> GroupRow:
    """A group by its id.

    Raises:
        NotFound: no such group.
    """
    row = session.get(GroupRow, group_id)
    if row is None:
        raise NotFound("no such group", got=group_id)
    return row


def group_named(session: Session, population: str, name: str) -> GroupRow:
    """A group by its name; errors as `get_group`."""
    row = session.scalar(select(GroupRow).where(GroupRow.population == population, GroupRow.name == name))
    if row is None:
        raise NotFound("the population has no such group", got=name)
    return row


def delete_group(service: Service, group_id: str) -> None:
    """Forget a group; rollouts keep its conditions as they were. Errors as `get_group`."""
    with service.database.write() as session:
        session.delete(get_group(session, group_id))


def count_devices(session: Session, row: GroupRow) -> int:
    """How many devices are in a group now; it looks at every device of the population."""
    of_group = select(func.count()).select_from(DeviceRow).where(*holds_for(row.population, row.filter))
    return session.scalar(of_group) or 0
