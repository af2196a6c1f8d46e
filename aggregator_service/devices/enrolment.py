"""How devices join a population: by its token, or as they were preauthorized."""

from __future__ import annotations

import base64
import hmac
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.devices.identity import SignedRequest, use_nonce, verify
from aggregator_service.devices.request_limits import STRANGERS, check_pace
from aggregator_service.pace.steering import come_back_seconds
from aggregator_service.service import Service
from aggregator_service.storage.tables import DeviceRow, PopulationRow
from aggregator_service.storage.transitions import create, move
from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, StateConflict, UnknownDevice
from hetlora.messages.device import DeviceStatus, EnrolRequest
from hetlora.signature import device_id_of
from hetlora.states import DeviceState


def enrol(service: Service, message: EnrolRequest, request: SignedRequest) -> DeviceStatus:
    """Admit a device by its population's token, or because it was preauthorized; again answers its state.

    Raises:
        AuthenticationFailed: not signed by the key that it brings, a key that the device replaced, or a token
            that does not admit.
        UnknownDevice: neither a token, nor preauthorized.
        StateConflict: the key belongs to a device of another population.
        ClockSkew, ReplayedRequest: see `hetlora.errors`.
        TooManyRequests: too many of this device, or too many wrong tokens.
    """
    now, device_id = service.clock(), request.parameters.key_id
    verify(request, message.public_key, now)
    with service.database.read() as session:  # whoever is refused takes no lock
        device = session.get(DeviceRow, device_id)
        _check_key(device, device_id, message.public_key)
        stranger = device is None and not _admits(session, message, device_id, now)
    if stranger:
        _refuse_stranger(service, request, now)
    try:
        return _join(service, message, request, now)
    except IntegrityError:  # the same device at the same moment, by another request
        return _join(service, message, request, now)


def _refuse_stranger(service: Service, request: SignedRequest, now: datetime) -> None:
    """Tell a wrong token from a right one as slowly as the settings say.

    All strangers share one limit. One for each population would tell which names exist, or have whoever makes
    up names fill the table. Nor does it stop a right token, or anybody could keep a fleet out: tokens of 192
    random bits are not found by trying, so what is limited is the work that trying makes.
    """
    most = service.settings.max_refused_enrolments_per_minute
    with service.database.read() as session:
        check_pace(session, STRANGERS, most, now)
    with service.database.note() as connection:
        use_nonce(connection, STRANGERS, request.parameters.nonce, now)
    raise _not_admitted()


def _join(service: Service, message: EnrolRequest, request: SignedRequest, now: datetime) -> DeviceStatus:
    device_id = request.parameters.key_id
    with service.database.write() as session:
        check_pace(session, device_id, service.settings.max_requests_per_minute, now)
        use_nonce(session, device_id, request.parameters.nonce, now)
        device = session.get(DeviceRow, device_id, with_for_update=True)
        _check_key(device, device_id, message.public_key)
        if device is None:
            device = _admit(session, device_id, message, now)
        elif device.population != message.population:
            raise StateConflict(
                "this key is enrolled elsewhere", got=message.population, expected=device.population
            )
        elif device.state is DeviceState.PREAUTHORIZED:
            device.public_key, device.name = message.public_key, device.name or message.name
            move(session, device, DeviceState.ACCEPTED, "preauthorized", now)
    waits = 0.0
    if device.state is not DeviceState.ACCEPTED:
        waits = come_back_seconds(service, device.population, device_id, now, idle=True)
    return DeviceStatus(device_id=device_id, state=device.state, retry_after_seconds=waits)


def _check_key(device: DeviceRow | None, device_id: str, public_key: str) -> None:
    """An id belongs to its device's key, which is the one that it follows from until it is replaced."""
    if device is not None and device.public_key:
        if device.public_key != public_key:
            raise AuthenticationFailed("this is not the key of the device", got=f"keyid {device_id}")
    elif device_id_of(base64.b64decode(public_key)) != device_id:
        raise AuthenticationFailed("enrolment is signed under another id than the key's", got=device_id)


def _admit(session: Session, device_id: str, message: EnrolRequest, now: datetime) -> DeviceRow:
    # Locked, so that a token that was replaced admits nobody after its replacement was answered.
    population = session.get(PopulationRow, message.population, with_for_update={"read": True})
    if not _admits(session, message, device_id, now):
        raise _not_admitted()
    assert population is not None
    device = DeviceRow(
        id=device_id,
        state=DeviceState.PENDING if population.admission == "approval" else DeviceState.ACCEPTED,
        population=population.name,
        public_key=message.public_key,
        name=message.name,
        last_contact_at=now,
    )
    create(session, device, "enrolment token", now)
    return device


def _admits(session: Session, message: EnrolRequest, device_id: str, now: datetime) -> bool:
    """Whether a device's token admits to the population; whoever has the right one is told of its expiry."""
    if message.enrolment_token is None:
        raise UnknownDevice(
            "no device of this id is preauthorized", got=device_id, expected="an enrolment token"
        )
    population = session.get(PopulationRow, message.population)
    expected = population.enrolment_token_sha256 if population else ""
    if not hmac.compare_digest(sha256_of(message.enrolment_token.encode()), expected):
        return False
    expires_at = population.token_expires_at if population else None
    if expires_at is not None and expires_at <= now:
        raise AuthenticationFailed(
            "enrolment token has expired", got=expires_at.isoformat(), expected="a new one"
        )
    return True


def _not_admitted() -> AuthenticationFailed:
    """A wrong name and a wrong token get one answer, so that names cannot be guessed."""
    return AuthenticationFailed("enrolment token does not admit to this population")
