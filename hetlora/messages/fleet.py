"""Messages of `/management/v1`: populations, devices, and the record of every change of state."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hetlora.messages.common import YEAR_SECONDS, Identifier, Integer, Message, Name, Timestamp, is_unset
from hetlora.messages.device import CapabilityReport, DeviceId, PublicKey
from hetlora.messages.quarantine import SuspensionRule
from hetlora.states import DeviceState

# What the enrolment token gives: a place in the population, or one once an operator has accepted the device.
AdmissionPolicy = Literal["token", "approval"]
TokenValidity = Annotated[float | None, Field(gt=0, le=YEAR_SECONDS)]  # None: until rotated


class PopulationCreate(Message):
    """Devices that share one learning problem, and how they are admitted."""

    name: Name
    admission: AdmissionPolicy = "token"
    token_valid_seconds: TokenValidity = None


class PopulationCreated(Message):
    """The enrolment token is shown this once; the service keeps only its hash."""

    name: Name
    enrolment_token: str
    token_expires_at: Timestamp | None = None


class TokenRotation(Message):
    """A new enrolment token for a population; the one so far admits nobody any more."""

    token_valid_seconds: TokenValidity = None


class PopulationStatus(Message):
    """A population as the service knows it."""

    name: Name
    admission: AdmissionPolicy
    token_expires_at: Timestamp | None
    devices: Integer
    created_at: Timestamp
    # Of devices with quarantined updates; none: no device is ever suspended by itself.
    suspension: SuspensionRule | None = Field(default=None, exclude_if=is_unset)


class DeviceDetails(Message):
    """A device as operators see it."""

    device_id: Identifier
    name: str
    population: Name
    state: DeviceState
    capabilities: CapabilityReport | None
    last_contact_at: Timestamp | None
    labels: dict[str, str] = Field(default_factory=dict)  # that operators gave it


class DevicePreauthorization(Message):
    """A device that will be accepted without a token when it comes; known by its id or its public key.

    Both together name a device that has another key than its first.
    """

    population: Name
    device_id: DeviceId | None = None
    public_key: PublicKey | None = None
    name: str = Field(default="", max_length=128)

    @model_validator(mode="after")
    def _names_a_device(self) -> Self:
        if self.device_id is None and self.public_key is None:
            raise ValueError("neither device_id nor public_key is given")
        return self


class ReplacedKey(Message):
    """A public key that a device had before."""

    public_key: PublicKey
    replaced_at: Timestamp


class DeviceDecision(Message):
    """The operator moves a device to another state."""

    state: DeviceState
    reason: str = Field(default="", max_length=1000)


Subject = Literal[
    "device",
    "assignment",
    "round",
    "run",
    "adapter_version",
    "evaluation",
    "evaluation_assignment",
    "quarantine",
    "rollout",
    "rollout_device",
]


class Transition(Message):
    """One stored change of state."""

    subject: Subject
    subject_id: Identifier
    old: str | None
    new: str
    reason: str
    at: Timestamp
