"""Populations, and the devices that join them."""

from __future__ import annotations

import base64
import hmac

from aggregator_service.identity import SignedRequest, check_signature
from aggregator_service.locks import lock_device
from aggregator_service.repeats import Repeatable, begin
from aggregator_service.service import Service
from aggregator_service.storage.tables import DeviceRow, PopulationRow
from aggregator_service.transitions import create, move
from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, StateConflict
from hetlora.messages.device import DeviceStatus, EnrolRequest
from hetlora.messages.management import DeviceDecision, PopulationCreate, PopulationCreated
from hetlora.signature import device_id_of
from hetlora.states import DeviceState


def create_population(
    service: Service, message: PopulationCreate, asked: Repeatable | None = None
) -> PopulationCreated:
    """Make a population and the token that admits devices to it.

    Raises:
        IdempotencyKeyReused: see `repeats.begin`.
        StateConflict: the name is taken; its token cannot be shown again.
    """
    now = service.clock()
    with service.database.write() as session:
        attempt = begin(session, asked, message, now)
        token_sha256 = sha256_of(attempt.secret.encode())
        population = session.get(PopulationRow, message.name)
        if population is None:
            session.add(PopulationRow(name=message.name, enrolment_token_sha256=token_sha256, created_at=now))
            attempt.note(message.name)
        # The repetition of the request that made it comes to the same token; nobody else does.
        elif not hmac.compare_digest(population.enrolment_token_sha256, token_sha256):
            raise StateConflict("population exists already", got=message.name, expected="a new name")
    return PopulationCreated(name=message.name, enrolment_token=attempt.secret)


def enrol(service: Service, message: EnrolRequest, request: SignedRequest) -> DeviceStatus:
    """Admit a device by its population's token; the same key again answers the same device.

    Raises:
        AuthenticationFailed: not signed by the key that it brings, or a token that does not admit.
        StateConflict: the key belongs to a device of another population.
    """
    now = service.clock()
    device_id = device_id_of(base64.b64decode(message.public_key))
    if request.parameters.key_id != device_id:
        raise AuthenticationFailed(
            "enrolment is signed under another id", got=request.parameters.key_id, expected=device_id
        )
    with service.database.write() as session:
        check_signature(session, request, message.public_key, now)
        device = session.get(DeviceRow, device_id)
        if device is None:
            _check_token(session.get(PopulationRow, message.population), message.enrolment_token)
            device = DeviceRow(
                id=device_id,
                state=DeviceState.ACCEPTED,
                population=message.population,
                public_key=message.public_key,
                name=message.name,
                last_contact_at=now,
            )
            create(session, device, "enrolment token", now)
        elif device.population != message.population:
            raise StateConflict(
                "this key is enrolled elsewhere", got=message.population, expected=device.population
            )
        return DeviceStatus(device_id=device_id, state=device.state)


def _check_token(population: PopulationRow | None, token: str) -> None:
    """A wrong name and a wrong token get one answer, so that names cannot be guessed."""
    expected = population.enrolment_token_sha256 if population else ""
    if not hmac.compare_digest(sha256_of(token.encode()), expected):
        raise AuthenticationFailed("enrolment token does not admit to this population")


def decide(service: Service, device_id: str, decision: DeviceDecision) -> None:
    """Bring a device to the state that the operator wants.

    Raises:
        NotFound: no such device.
        StateConflict: the device's state does not allow the move.
    """
    with service.database.write() as session:
        device = lock_device(session, device_id)
        move(session, device, decision.state, decision.reason or "operator", service.clock())
