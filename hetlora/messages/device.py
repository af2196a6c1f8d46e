"""Messages of `/device/v1`: enrolment, check-in, offer, plan, report, receipt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hetlora.messages.common import Count, Identifier, Message, Name, ObjectRef, PositiveCount, Timestamp
from hetlora.states import AssignmentState, DeviceState

PublicKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]  # Ed25519, 32 bytes in base64


class EnrolRequest(Message):
    """A device asks to join a population; signed by the key that it brings."""

    population: Name
    enrolment_token: str = Field(min_length=1, max_length=128)
    public_key: PublicKey
    name: str = Field(default="", max_length=128)


class DeviceStatus(Message):
    """A device as the service knows it."""

    device_id: Identifier
    state: DeviceState


class CapabilityReport(Message):
    """What a device can do: measured on it, or given by hand for a simulation."""

    source: Literal["measured", "given"]
    cores: PositiveCount
    memory_total_bytes: Count
    memory_available_bytes: Count
    matmul_flops_per_second: float = Field(gt=0)  # float32, on one core
    disk_free_bytes: Count
    traffic_bytes_per_round: Count | None = None  # what adapters may take, both ways; None: no limit


class CheckIn(Message):
    """A device says that it could work now."""

    protocol_version: Count
    sdk_version: str = Field(max_length=32)
    population: Name
    capabilities: CapabilityReport
    example_count: Count


class TrainingSettings(Message):
    """How each device trains in one round, frozen with the run."""

    steps: PositiveCount = Field(default=10, le=100_000)
    batch_size: PositiveCount = Field(default=16, le=4096)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    max_tokens: PositiveCount = Field(default=64, le=8192)
    pruning_decay: float = Field(default=0.99, gt=0, le=1)  # gamma; 1 means no pruning
    pruning_penalty: float = Field(default=1e-3, ge=0)  # lambda


class Offer(Message):
    """Work for this device, if one of the ranks `min_rank` to `max_rank` fits it."""

    assignment_id: Identifier
    run_id: Identifier
    round_index: Count
    bundle: ObjectRef  # the manifest; it names the other files
    min_rank: PositiveCount
    max_rank: PositiveCount  # the run's limit, or what self-pruning left this device
    round_seconds: float = Field(gt=0)  # how long local training may take
    training: TrainingSettings
    lease_expires_at: Timestamp


class CheckInAnswer(Message):
    """An offer, or when to come back and why."""

    offer: Offer | None
    retry_after_seconds: float = Field(ge=0)
    reason: str


class StartRequest(Message):
    """The device takes the offer at the rank that it can afford."""

    rank: PositiveCount


class Plan(Message):
    """What the device executes: the global adapter truncated to `rank`, and a seed for its batches."""

    assignment_id: Identifier
    rank: PositiveCount
    adapter: ObjectRef
    seed: Count
    lease_expires_at: Timestamp


class Report(Message):
    """Status and metrics that go with an update."""

    update: ObjectRef
    rank: Count  # after self-pruning
    example_count: PositiveCount
    steps: PositiveCount
    first_loss: float
    last_loss: float
    training_seconds: float = Field(ge=0)
    peak_memory_bytes: Count
    downloaded_bytes: Count


class Failure(Message):
    """The device gives the assignment back."""

    code: str = Field(pattern=r"^[a-z_]{1,64}$")
    message: str = Field(max_length=1000)


class Receipt(Message):
    """What became of the assignment, and when to check in again."""

    assignment_id: Identifier
    state: AssignmentState
    reason: str
    retry_after_seconds: float = Field(ge=0)
