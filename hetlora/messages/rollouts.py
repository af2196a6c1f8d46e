"""Messages of labels, groups and rollouts: who is to have which version, and how it went (ADR 0037)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from hetlora.digest import Sha256
from hetlora.messages.common import YEAR_SECONDS, Identifier, Integer, Message, Name, Timestamp
from hetlora.messages.device import Word
from hetlora.messages.evaluation import MAX_EXAMPLES, MAX_LOSS
from hetlora.states import RolloutDeviceState, RolloutState

# What a client says in `abilities` of its check-in that can be asked to adopt a version.
ADOPT: Final = "adopt"
MAX_LABELS: Final = 16
MAX_CONDITIONS: Final = 16
MAX_STAGES: Final = 16
MAX_WINDOWS: Final = 32
LABEL: Final = "label."

LabelValue = Annotated[str, Field(min_length=1, max_length=128)]
TextField = Literal["state", "name", "source", "architecture", "accelerator", "network"]
NumberField = Literal[
    "cores",
    "memory_total_bytes",
    "memory_available_bytes",
    "matmul_flops_per_second",
    "disk_free_bytes",
    "traffic_bytes_per_round",
    "memory_bandwidth_bytes_per_second",
    "download_bytes_per_second",
]
_TEXTS: Final = get_args(TextField)
NUMBER_FIELDS: Final = get_args(NumberField)
FieldName = Annotated[
    str,
    Field(pattern=rf"^(label\.[a-z0-9][a-z0-9._-]{{0,62}}|{'|'.join((*_TEXTS, *NUMBER_FIELDS))})$"),
]
Comparator = Literal["is", "is_not", "begins_with", "at_least", "at_most"]


class LabelChange(Message):
    """Labels that an operator gives a device, those of the same key replaced, and keys that go."""

    set: dict[Name, LabelValue] = Field(default_factory=dict, max_length=MAX_LABELS)
    remove: tuple[Name, ...] = Field(default=(), max_length=MAX_LABELS)

    @model_validator(mode="after")
    def _changes_something_once(self) -> Self:
        if not self.set and not self.remove:
            raise ValueError("neither set nor remove names a label")
        if both := set(self.set) & set(self.remove):
            raise ValueError(f"set and remove both name {', '.join(sorted(both))}")
        return self


class DeviceLabels(Message):
    """The labels of a device."""

    device_id: Identifier
    labels: dict[str, str]


class GroupCondition(Message):
    """What holds for a device of a group: `field`, a comparison, and a value.

    Fields are `state`, `name`, `label.KEY`, and those of the capability report. Texts can be compared by
    `is`, `is_not` and `begins_with`, numbers by `is`, `is_not`, `at_least` and `at_most`. Of what a device
    has not told only `is_not` holds.
    """

    field: FieldName
    comparison: Comparator
    value: Annotated[str, Field(max_length=128)] | Annotated[float, Field(strict=True, ge=-1e18, le=1e18)]

    @model_validator(mode="after")
    def _compares_what_can_be_compared(self) -> Self:
        is_number = self.field in NUMBER_FIELDS
        if is_number == isinstance(self.value, str):
            raise ValueError(f"{self.field} is compared with a {'number' if is_number else 'text'}")
        if self.comparison == "begins_with" and is_number:
            raise ValueError(f"{self.field} is a number, which begins with nothing")
        if self.comparison in ("at_least", "at_most") and not is_number:
            raise ValueError(f"{self.field} is a text, which is neither more nor less than another")
        return self


class DeviceFilter(Message):
    """Conditions that all hold; without any, all accepted devices of the population."""

    conditions: tuple[GroupCondition, ...] = Field(default=(), max_length=MAX_CONDITIONS)


class GroupCreate(Message):
    """A group of a population's devices; its name is of no other group there."""

    population: Name
    name: Name
    filter: DeviceFilter = DeviceFilter()


class GroupStatus(Message):
    """A group, and how many devices are in it at this moment, where that was asked."""

    group_id: Identifier
    population: Name
    name: Name
    filter: DeviceFilter
    created_at: Timestamp
    devices: Integer | None = None


class RolloutStage(Message):
    """A share of the group, and what has to come of it before the next is asked.

    Reports are of devices that this stage asked and earlier ones had not: adopted, kept, failed, and silent
    ones, who took the version and were not heard of for the rollout's `lease_seconds`.
    """

    share: float = Field(strict=True, gt=0, le=1, description="of the group, earlier stages included")
    least_reports: int = Field(strict=True, ge=1, le=1_000_000, description="before anything is decided")
    most_failed_share: float = Field(
        default=0.1,
        strict=True,
        ge=0,
        le=1,
        description="of all reports so far: failed or silent; more rolls back",
    )
    most_loss_increase: float | None = Field(
        default=None,
        strict=True,
        ge=0,
        le=MAX_LOSS,
        description="mean of new loss less former loss over the stage's devices; more rolls back. With it a "
        "stage waits for three devices that scored both",
    )
    settle_seconds: float = Field(
        default=0, strict=True, ge=0, le=YEAR_SECONDS, description="it lasts so long at least"
    )


class FreezeWindow(Message):
    """A time in which no rollout moves on to its next stage."""

    begins_at: Timestamp
    ends_at: Timestamp

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.begins_at >= self.ends_at:
            raise ValueError(f"begins_at {self.begins_at} is not before ends_at {self.ends_at}")
        return self


class RolloutSettings(Message):
    """How a version goes out, frozen with the rollout."""

    stages: tuple[RolloutStage, ...] = Field(min_length=1, max_length=MAX_STAGES)
    freeze: tuple[FreezeWindow, ...] = Field(default=(), max_length=MAX_WINDOWS)
    lease_seconds: float = Field(default=3600, strict=True, ge=1, le=YEAR_SECONDS)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if any(left.share >= right.share for left, right in pairwise(self.stages)):
            raise ValueError("shares of stages are not ascending and unique")
        return self


class RolloutCreate(Message):
    """A rollout of a version, in state draft, to a group or to all devices of the version's population.

    Without `former` it is the version that was rolled out last in the population, or else the one that the
    version's run began with.
    """

    version: Identifier
    group: Name | None = None
    former: Identifier | None = None
    settings: RolloutSettings


class RolloutCounts(Message):
    """Devices of a rollout by what became of them; silent ones are among the started."""

    offered: Integer = 0
    started: Integer = 0
    silent: Integer = 0
    adopted: Integer = 0
    kept: Integer = 0
    failed: Integer = 0
    recalled: Integer = 0
    reverted: Integer = 0
    aborted: Integer = 0


class StageFigures(Message):
    """What a stage came to when it was decided; a loss is of three devices at least."""

    stage: Integer  # from 1
    reports: Integer
    failed_share: float  # of all reports by then
    compared: Integer  # devices that scored both
    loss_increase: float | None = None
    outcome: Literal["moved_on", "completed", "rolled_back"]


class StagesDecided(Message):
    """The figures of the stages that were decided, in their order."""

    stages: tuple[StageFigures, ...] = ()


class RolloutStatus(Message):
    """A rollout as operators see it: nothing of a single device's losses."""

    rollout_id: Identifier
    population: Name
    version: Identifier
    former: Identifier
    group: Name | None
    filter: DeviceFilter  # as it was when the rollout was made
    settings: RolloutSettings
    state: RolloutState
    reason: str
    stage: Integer  # from 1
    stage_began_at: Timestamp | None
    created_at: Timestamp
    ended_at: Timestamp | None
    counts: RolloutCounts
    stages_decided: tuple[StageFigures, ...] = ()


class RolloutDeviceStatus(Message):
    """What a rollout asked of one device, and what came of it."""

    ask_id: Identifier  # `subject_id` of its transitions, whose subject is `rollout_device`
    rollout_id: Identifier
    device_id: Identifier
    stage: Integer
    state: RolloutDeviceState
    reason: str
    rank: Integer | None


class AdoptionReport(Message):
    """What a device did with the version that it was sent.

    `reason` is a word: `not_worse`, `not_compared`, `worse`, `own_choice`, `no_time`, `taken_back`. Losses
    are means over the same examples that it holds out; both are there, or none.
    """

    adapter: Sha256  # as the plan named it
    outcome: Literal["adopted", "kept"]
    reason: Word
    example_count: Annotated[int, Field(strict=True, ge=1, le=MAX_EXAMPLES)] | None = None
    new_loss: float | None = Field(default=None, ge=0, le=MAX_LOSS)
    former_loss: float | None = Field(default=None, ge=0, le=MAX_LOSS)

    @model_validator(mode="after")
    def _has_both_or_none(self) -> Self:
        told = {value is None for value in (self.example_count, self.new_loss, self.former_loss)}
        if len(told) > 1:
            raise ValueError("example_count, new_loss and former_loss go together")
        return self
