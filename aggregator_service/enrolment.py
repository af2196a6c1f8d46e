"""Populations, and the devices that join them."""

from __future__ import annotations

import base64
import hmac
import secrets
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.identity import SignedRequest, use_nonce, verify
from aggregator_service.repeats import Repeatable, begin
from aggregator_service.request_limits import STRANGERS, check_pace
from aggregator_service.service import Service
from aggregator_service.steering import come_back_seconds
from aggregator_service.storage.tables import DeviceRow, PopulationRow
from aggregator_service.transitions import create, move
from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, NotFound, StateConflict, UnknownDevice
from hetlora.messages.device import DeviceStatus, EnrolRequest
from hetlora.messages.management import PopulationCreate, PopulationCreated
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
        row = session.get(PopulationRow, message.name)
        if row is None:
            row = PopulationRow(name=message.name, admission=message.admission, created_at=now)
            _replace_token(row, attempt.secret, message.token_valid_seconds, now)
            session.add(row)
            attempt.note(message.name)
        # The repetition of the request that made it comes to the same token; nobody else does.
        elif not hmac.compare_digest(row.enrolment_token_sha256, sha256_of(attempt.secret.encode())):
            raise StateConflict("population exists already", got=message.name, expected="a new name")
    return PopulationCreated(
        name=row.name, enrolment_token=attempt.secret, token_expires_at=row.token_expires_at
    )


def rotate_token(service: Service, name: str, valid_seconds: float | None) -> PopulationCreated:
    """Replace a population's token; the one so far admits nobody from now on, and devices that are in stay.

    Raises:
        NotFound: no such population.
    """
    token = secrets.token_urlsafe(24)
    with service.database.write() as session:
        row = session.get(PopulationRow, name, with_for_update=True)
        if row is None:
            raise NotFound("no such population", got=name)
        _replace_token(row, token, valid_seconds, service.clock())
    return PopulationCreated(name=name, enrolment_token=token, token_expires_at=row.token_expires_at)


def _replace_token(row: PopulationRow, token: str, valid_seconds: float | None, now: datetime) -> None:
    row.enrolment_token_sha256 = sha256_of(token.encode())
    row.token_expires_at = None if valid_seconds is None else now + timedelta(seconds=valid_seconds)


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
    with service.database.write(durable=False) as session:
        use_nonce(session, STRANGERS, request.parameters.nonce, now)
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
