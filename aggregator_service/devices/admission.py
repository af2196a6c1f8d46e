"""What operators decide about devices: who may come, who may take part, who may no longer."""

from __future__ import annotations

import base64
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.rounds.closing import settle
from aggregator_service.rounds.evaluations import end_work
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_device, lock_run
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, PopulationRow
from aggregator_service.storage.transitions import create, move
from hetlora.errors import NotFound, StateConflict
from hetlora.messages.fleet import DeviceDecision, DevicePreauthorization
from hetlora.signature import device_id_of
from hetlora.states import LIVE_ASSIGNMENT, AssignmentState, DeviceState


def check_device(service: Service, device_id: str) -> None:
    """Raise NotFound unless there is such a device: what it has is then none, not unknown."""
    with service.database.read() as session:
        if session.get(DeviceRow, device_id) is None:
            raise NotFound("no such device", got=device_id)


def preauthorize(service: Service, message: DevicePreauthorization) -> str:
    """Have a device accepted when it comes, without a token; again answers the same id.

    Raises:
        NotFound: no such population.
        StateConflict: the device is known in another state, or in another population.
    """
    device_id = message.device_id or device_id_of(base64.b64decode(message.public_key or ""))
    try:
        with service.database.write() as session:
            _preauthorize(session, device_id, message, service.clock())
    except IntegrityError as error:  # it came, or was preauthorized, at the same moment
        raise StateConflict("device is known already", got=device_id, expected="a new device") from error
    return device_id


def _preauthorize(session: Session, device_id: str, message: DevicePreauthorization, now: datetime) -> None:
    if session.get(PopulationRow, message.population) is None:
        raise NotFound("no such population", got=message.population)
    device = session.get(DeviceRow, device_id, with_for_update=True)
    if device is None:
        row = DeviceRow(
            id=device_id,
            state=DeviceState.PREAUTHORIZED,
            population=message.population,
            public_key=message.public_key or "",
            name=message.name,
        )
        create(session, row, "operator", now)
    elif (device.state, device.population) != (DeviceState.PREAUTHORIZED, message.population):
        raise StateConflict(
            "device is known already",
            got=f"state {device.state} in population {device.population}",
            expected="a new device",
        )


def decide(service: Service, device_id: str, decision: DeviceDecision) -> None:
    """Bring a device to the state that the operator wants; whoever may not take part loses its work.

    Raises:
        NotFound: no such device.
        StateConflict: the device's state does not allow the move.
    """
    now = service.clock()
    with service.database.write() as session:
        device = lock_device(session, device_id)
        if decision.state is DeviceState.ACCEPTED and device.state is DeviceState.PREAUTHORIZED:
            raise StateConflict(
                "device has not come yet", got=f"state {device.state}", expected="a device that enrolled"
            )
        move(session, device, decision.state, decision.reason or "operator", now)
        if device.state is not DeviceState.ACCEPTED:
            end_work_of(session, device, now)


def end_work_of(session: Session, device: DeviceRow, now: datetime) -> None:
    """Free the place of a device that lost its standing; an update that was accepted stays in its round."""
    mine = (AssignmentRow.device_id == device.id, AssignmentRow.state.in_(LIVE_ASSIGNMENT))
    # A device has one live assignment at most, and being locked it is given no other.
    run_id = session.scalar(select(AssignmentRow.run_id).where(*mine))
    if run_id is None:
        end_work(session, device.id, f"device is {device.state}: {device.reason}", now)
        return
    settle(session, lock_run(session, run_id), now)
    for assignment in session.scalars(select(AssignmentRow).where(*mine)):
        move(session, assignment, AssignmentState.ABORTED, f"device is {device.state}: {device.reason}", now)
