"""Messages of `/device/v1`: enrolment, check-in, offer, plan, report, receipt."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hetlora.digest import Sha256
from hetlora.errors import ProtocolUnsupported
from hetlora.messages.common import (
    PROTOCOL_VERSIONS,
    Count,
    Identifier,
    Message,
    Name,
    ObjectRef,
    PositiveCount,
    Timestamp,
    is_empty,
)
from hetlora.messages.conditions import ANY_TIME, Conditions, asks_nothing
from hetlora.messages.evaluation import MAX_LOSS
from hetlora.messages.masking import MaskingTerms
from hetlora.messages.step_options import StepOptions
from hetlora.signature import is_of_small_order
from hetlora.states import AssignmentState, DeviceState

# Of a text at most.
MOST_TOKENS: Final = 8192

# Half of the SHA-256 of the device's first public key: see `hetlora.signature.device_id_of`.
DeviceId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def _of_large_order(public_key: str) -> str:
    if is_of_small_order(base64.b64decode(public_key)):
        raise ValueError("is of small order: anybody could sign for it")
    return public_key


# One of a few words, of which later versions may know more.
Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
# Ed25519, 32 bytes in base64.
PublicKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$"), AfterValidator(_of_large_order)]


class EnrolRequest(Message):
    """A device asks to join a population; signed by the key that it brings.

    A device that an operator preauthorized, or that is enrolled already, needs no token.
    """

    population: Name
    enrolment_token: str | None = Field(default=None, min_length=1, max_length=128)
    public_key: PublicKey
    name: str = Field(default="", max_length=128)


class DeviceStatus(Message):
    """A device as the service knows it, and when one that is not accepted may ask again."""

    device_id: Identifier
    state: DeviceState
    retry_after_seconds: float = Field(default=0, ge=0)


class KeyRotation(Message):
    """A device takes another key; signed by the key that it had so far.

    `proof` is the new key's signature over `hetlora.signature.rotation_base`, in base64.
    """

    public_key: PublicKey
    proof: str = Field(pattern=r"^[A-Za-z0-9+/]{86}==$")


def _is_unknown(value: object) -> bool:
    return value is None


class CapabilityReport(Message):
    """What a device can do: measured on it, or given by hand for a simulation.

    What comes after the traffic is for operators, left out where it is unknown, and nothing in it is one
    device's alone. Words are open: `architecture` is x86_64 or aarch64, say; `accelerator` none, nvidia or
    tegra; `network` ethernet, wifi, cellular or other.
    """

    source: Literal["measured", "given"]
    cores: PositiveCount
    memory_total_bytes: Count
    memory_available_bytes: Count
    matmul_flops_per_second: float = Field(gt=0)  # float32, on one core
    disk_free_bytes: Count
    traffic_bytes_per_round: Count | None = None  # what adapters may take, both ways; None: no limit
    architecture: Word | None = Field(default=None, exclude_if=_is_unknown)
    accelerator: Word | None = Field(default=None, exclude_if=_is_unknown)
    network: Word | None = Field(default=None, exclude_if=_is_unknown)
    # Read and written together, by one core; and of the newest long download.
    memory_bandwidth_bytes_per_second: float | None = Field(default=None, gt=0, exclude_if=_is_unknown)
    download_bytes_per_second: float | None = Field(default=None, gt=0, exclude_if=_is_unknown)


def _is_zero(count: int) -> bool:
    return count == 0


class CheckIn(Message):
    """A device says that it could work now.

    Raises:
        ProtocolUnsupported: of another version than `PROTOCOL_VERSIONS`, whatever else is in it.
    """

    protocol_version: Count
    sdk_version: str = Field(max_length=32)
    population: Name
    capabilities: CapabilityReport
    example_count: Count
    held_out_count: Count = Field(default=0, exclude_if=_is_zero)  # kept for evaluations; 0: offer none
    # What the client knows beyond training and evaluating, `adopt` and `mask` so far; it is asked no other.
    abilities: tuple[Word, ...] = Field(default=(), max_length=16, exclude_if=is_empty)

    @model_validator(mode="before")
    @classmethod
    def _version_is_spoken(cls, told: object) -> object:
        """Before the fields are looked at: those of a newer version would be taken for mistakes."""
        version = told.get("protocol_version") if isinstance(told, Mapping) else None
        if type(version) is int and version not in PROTOCOL_VERSIONS:
            raise ProtocolUnsupported(
                "this version of the protocol is not spoken here",
                got=version,
                expected=" or ".join(map(str, PROTOCOL_VERSIONS)),
                spoken=PROTOCOL_VERSIONS,
            )
        return told


# How numbers travel from devices; int8 has a scale for each rank (docs/adr/0019-compressed-updates.md).
UploadPrecision = Literal["float32", "float16", "int8"]


def _is_false(value: bool) -> bool:
    return not value


def _is_float32(precision: UploadPrecision) -> bool:
    return precision == "float32"


class TrainingSettings(StepOptions):
    """How each device trains in one round, and how precisely it tells of it, frozen with the run."""

    steps: int = Field(default=10, strict=True, ge=1, le=100_000)
    batch_size: int = Field(default=16, strict=True, ge=1, le=4096)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    max_tokens: int = Field(default=64, strict=True, ge=1, le=MOST_TOKENS)
    # To so many tokens a device may cut texts that it cannot train on otherwise; None: to `max_tokens` alone.
    min_tokens: int | None = Field(default=None, strict=True, ge=1, le=MOST_TOKENS, exclude_if=_is_unknown)
    pruning_decay: float = Field(default=0.99, gt=0, le=1)  # gamma; 1 means no pruning
    pruning_penalty: float = Field(default=1e-3, ge=0)  # lambda
    prune_by: Literal["model", "module"] = "model"  # one decision for all modules, or one for each
    # Left out where it asks for nothing: older devices need not know of it.
    upload_precision: UploadPrecision = Field(default="float32", exclude_if=_is_float32)
    # Whether devices score what they hold out before the first step and after the last, and tell both losses.
    evaluate: bool = Field(default=False, strict=True, exclude_if=_is_false)

    @model_validator(mode="after")
    def _is_warm_before_the_end(self) -> Self:
        if self.warm_up_steps >= self.steps:
            raise ValueError(f"warm_up_steps {self.warm_up_steps} leave nothing of {self.steps} steps")
        return self


TaskKind = Literal["train", "evaluate", "adopt"]
# A device reads the manifest of each before it plans.
MAX_VARIANTS: Final = 8


def _is_training(kind: TaskKind) -> bool:
    return kind == "train"


class Offer(Message):
    """Work for this device, if one of the ranks `min_rank` to `max_rank` fits it.

    An evaluation or an adoption is of the version that round `round_index` made, or which the run began with.
    Its batches are those of `training`, which means nothing else to it.
    """

    # Only for those who said that they hold examples out; to others offers look as before there were such.
    kind: TaskKind = Field(default="train", exclude_if=_is_training)
    assignment_id: Identifier
    run_id: Identifier
    round_index: Count
    bundle: ObjectRef  # the manifest; it names the other files
    # Bundles of the same adapter in the place of that one, the operator's favourite first (docs/adr/0028).
    variants: tuple[ObjectRef, ...] = Field(default=(), max_length=MAX_VARIANTS, exclude_if=is_empty)
    min_rank: PositiveCount
    max_rank: PositiveCount  # the run's limit, or what self-pruning left this device
    # What is sent and trained whichever rank is taken, where that counts what comes back (LoRA-A2, FLASC).
    trained_rank: PositiveCount | None = None
    round_seconds: float = Field(gt=0)  # how long local training, or evaluating, may take
    training: TrainingSettings
    lease_expires_at: Timestamp
    conditions: Conditions = Field(default=ANY_TIME, exclude_if=asks_nothing)  # the app may ask more
    # How a trained update is masked before it is sent; only for those who said `mask`.
    masking: MaskingTerms | None = Field(default=None, exclude_if=_is_unknown)
    # Of an adoption: another version was rolled back, and this is taken whatever it scores.
    takes_back: bool = Field(default=False, strict=True, exclude_if=_is_false)


class CheckInAnswer(Message):
    """An offer, or when to come back and why."""

    offer: Offer | None
    retry_after_seconds: float = Field(ge=0)
    reason: str


class StartRequest(Message):
    """The device takes the offer at the rank that it can afford, with the run's own bundle or a variant."""

    rank: PositiveCount
    variant: Sha256 | None = Field(default=None, exclude_if=_is_unknown)  # None: the run's own bundle


class Adaptation(Message):
    """Which numbers of the adapter a device trains, and which it sends back.

    - `trained`: the other factor keeps what was sent (FFA-LoRA, RoLoRA, DEeR, LoRA-A2). With "core" both do,
      and an r x r matrix R of each module is trained, W = W0 + scaling B R A (Fed-SB); it begins as sent.
    - `private_lora_B`: both are trained, lora_B stays on the device from round to round of one run
      (FedSA-LoRA). At another rank its leading columns are taken, or zeros beyond them.
    - `lora_B_rate`: the learning rate of lora_B over that of lora_A (LoRA-A2 takes 5).
    - `selected_ranks`: only so many rank-one parts of the whole model are sent, those that moved most
      (LoRA-A2).
    - `upload_density`: only this share of the change's entries is sent, the largest (FLASC).
    - `ranks`: which ranks of the global adapter these are (FSLoRA); the device has no use for it.
    - `amplification`: the model computes amplification B A; what is trained and sent is B and A (FSLoRA's
      R / r). It does not act on the plan's frozen adapter.
    - `upload_precision`: what is sent, where it is not float32, is the change against what was received,
      rounded to the nearest.
    - `error_feedback`: what rounding left out is kept on the device for the run, and added to what it sends
      in the next round, before that is rounded. For factors sent whole alone.
    """

    trained: Literal["both", "lora_A", "lora_B", "core"] = "both"
    private_lora_B: bool = False
    lora_B_rate: float = Field(default=1.0, gt=0)
    selected_ranks: Count | None = None
    upload_density: float = Field(default=1.0, gt=0, le=1)
    ranks: tuple[Count, ...] | None = None
    amplification: float = Field(default=1.0, gt=0)
    upload_precision: UploadPrecision = Field(default="float32", exclude_if=_is_float32)
    error_feedback: bool = Field(default=False, exclude_if=_is_false)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.ranks is not None and any(left >= right for left, right in pairwise(self.ranks)):
            raise ValueError("ranks are not ascending and unique")
        if self.private_lora_B and self.trained != "both":
            raise ValueError("a private lora_B is trained beside lora_A")
        if self.selected_ranks is not None and (self.private_lora_B or self.upload_density < 1):
            raise ValueError("selected ranks are sent whole, with both factors or the one that is trained")
        if self.trained == "core" and (self.selected_ranks is not None or self.upload_density < 1):
            raise ValueError("cores are sent whole")
        if self.trained == "core" and self.upload_precision != "float32":
            raise ValueError("cores are sent in float32")
        if self.error_feedback and self.upload_precision == "float32":
            raise ValueError("nothing is rounded off float32")
        if self.error_feedback and (self.selected_ranks is not None or self.upload_density < 1):
            raise ValueError("what rounding left out is added to factors that are sent whole")
        return self


class Plan(Message):
    """What the device executes: the global adapter truncated to `rank`, and a seed for its batches.

    Modules may have ranks of their own, also above `rank`, as long as the adapter has no more numbers than
    one of `rank` in each module. `frozen` is a second adapter that is added to the model, never trained and
    never sent back; its ranks have no limit. The device chose its rank before it could know of it, and its
    forecast of memory, time and traffic leaves it out.
    """

    assignment_id: Identifier
    rank: PositiveCount
    adapter: ObjectRef
    seed: Count
    lease_expires_at: Timestamp
    adaptation: Adaptation = Adaptation()
    frozen: ObjectRef | None = None


class Report(Message):
    """Status and metrics that go with an update.

    The losses of what a device holds out are there together, where it was asked for them and has any: means
    over the same examples, or over the tokens of their answers.
    """

    update: ObjectRef
    rank: Count  # after self-pruning
    example_count: PositiveCount
    steps: PositiveCount
    first_loss: float
    last_loss: float
    training_seconds: float = Field(ge=0)
    peak_memory_bytes: Count
    downloaded_bytes: Count
    held_out_loss_before: float | None = Field(default=None, ge=0, le=MAX_LOSS, exclude_if=_is_unknown)
    held_out_loss_after: float | None = Field(default=None, ge=0, le=MAX_LOSS, exclude_if=_is_unknown)


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
