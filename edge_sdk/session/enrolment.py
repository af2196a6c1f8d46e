"""How a device comes to be one of its population: at the first check-in, or when an operator has said yes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from pydantic import ValidationError

from edge_sdk.identity.identity import Identity
from edge_sdk.transport.service import DeviceService
from hetlora.errors import NotPermitted, ProtocolUnsupported, SettingsError, UnknownDevice, faults_in_words
from hetlora.messages.common import PROTOCOL_VERSIONS
from hetlora.messages.device import CheckIn, CheckInAnswer, DeviceStatus, EnrolRequest
from hetlora.states import DeviceState

logger = logging.getLogger(__name__)

# Why there is no work for a device that an operator has not accepted yet.
AWAITING_APPROVAL: Final = "an operator has to accept this device first"


def enrolment_of(population: str, name: str, token: str | None, identity: Identity) -> EnrolRequest:
    """What a device says of itself to be admitted.

    Raises:
        SettingsError: a population, name or token that no message takes.
    """
    try:
        return EnrolRequest(
            population=population, enrolment_token=token, public_key=identity.public_key, name=name
        )
    except ValidationError as error:
        raise SettingsError(
            "this device cannot enrol under these settings", got=faults_in_words(error.errors())
        ) from error


def check_in(
    service: DeviceService,
    request: CheckIn,
    enrolment: EnrolRequest,
    on_pending: Callable[[DeviceStatus], None],
    spoken: Collection[int] = PROTOCOL_VERSIONS,
) -> CheckInAnswer:
    """Check in at the newest version of the protocol that both speak, which the assignment then keeps to.

    A service that the device is not known to is asked to enrol it first; a device that an operator has to
    accept is told to come back, by `on_pending` too.

    Raises:
        ProtocolUnsupported: the two have no version in common.
        RefusedError: the service does not admit the device.
    """
    asked = request.model_copy(update={"protocol_version": max(spoken)})
    try:
        return _check_in(service, asked, enrolment, on_pending)
    except ProtocolUnsupported as refusal:
        common = max(set(spoken) & set(refusal.spoken), default=None)
        if common in (None, asked.protocol_version):
            raise
        logger.info("protocol_version=%d of=%s event=older_service", common, sorted(spoken))
    return _check_in(service, asked.model_copy(update={"protocol_version": common}), enrolment, on_pending)


def _check_in(
    service: DeviceService,
    request: CheckIn,
    enrolment: EnrolRequest,
    on_pending: Callable[[DeviceStatus], None],
) -> CheckInAnswer:
    try:
        return service.check_in(request)
    except UnknownDevice:
        # The service knows best whether it knows us: also after it lost its database.
        status = _enrol(service, enrolment)
    except NotPermitted:
        status = _enrol(service, enrolment)  # which answers the state of a device that is enrolled
        if status.state is not DeviceState.PENDING:
            raise
    if status.state is not DeviceState.PENDING:
        return service.check_in(request)
    on_pending(status)
    return CheckInAnswer(offer=None, retry_after_seconds=status.retry_after_seconds, reason=AWAITING_APPROVAL)


def _enrol(service: DeviceService, enrolment: EnrolRequest) -> DeviceStatus:
    status = service.enrol(enrolment)
    logger.info("device=%s state=%s event=enrolled", status.device_id, status.state)
    return status
