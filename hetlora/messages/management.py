"""Messages of `/management/v1`: bundles, runs, rounds, adapter versions; `fleet.py` has the devices."""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from hetlora.digest import Sha256, sha256_of
from hetlora.messages.common import (
    YEAR_SECONDS,
    Count,
    Identifier,
    Integer,
    Message,
    Name,
    ObjectRef,
    PositiveCount,
    Timestamp,
    is_empty,
    is_unset,
)
from hetlora.messages.conditions import ANY_TIME, Conditions
from hetlora.messages.defence import Defence
from hetlora.messages.device import MAX_VARIANTS, TrainingSettings
from hetlora.messages.ending import Schedule, StopRules
from hetlora.messages.evaluation import EvaluationSettings, EvaluationStatus
from hetlora.messages.masking import SecureAggregation
from hetlora.messages.only_with import OnlyWith, check_all_used
from hetlora.messages.privacy import PrivacySettings, PrivacySpent
from hetlora.messages.rules import HetLoraRule, RuleSettings
from hetlora.messages.screens import Screens
from hetlora.messages.server_optimizer import ServerOptimizer
from hetlora.states import (
    AdapterVersionState,
    AssignmentState,
    RoundState,
    RunState,
)


class BundlePublish(Message):
    """Announce a bundle whose manifest and files were uploaded as objects before."""

    digest: Sha256


class BundleStatus(Message):
    """A published bundle."""

    digest: Sha256
    base_model: str
    task: str
    max_rank: Integer
    size_bytes: Integer


# What self-pruning is set to where nobody asked for it and the rule is not the one that it belongs to.
UNPRUNED: Final = {"pruning_decay": 1.0, "pruning_penalty": 0.0}


class RunSettings(Message):
    """The frozen configuration of a run; self-pruning is off by default but with HetLoRA."""

    mode: Literal["synchronous", "buffered"] = Field(
        default="synchronous",
        description="whether devices at work when the goal is met are told to stop (synchronous), or go on, "
        "and count in a later round, less the older their adapter is (buffered)",
    )
    rounds: int = Field(default=5, strict=True, ge=1, le=100_000)
    goal_count: int = Field(strict=True, ge=1, le=1_000_000)
    over_selection: float = Field(default=1.3, ge=1, le=10)
    minimum_share: float = Field(default=0.5, gt=0, le=1)
    report_window_seconds: float = Field(default=3600, ge=1, le=YEAR_SECONDS)
    lease_seconds: float = Field(default=900, ge=1, le=YEAR_SECONDS)
    max_staleness: Annotated[int, OnlyWith(("buffered",))] = Field(
        default=20,
        strict=True,
        ge=1,
        le=100_000,
        description="rounds that a buffered run may close while a device works, before its update is refused",
    )
    rule: RuleSettings = HetLoraRule()
    server_optimizer: ServerOptimizer | None = None
    defence: Defence = Defence()
    privacy: PrivacySettings | None = Field(
        default=None, description="clipping and noise, which the population's privacy budget pays for"
    )
    screens: Screens | None = Field(
        default=None,
        exclude_if=is_unset,
        description="which accepted updates are taken out of a round, and kept apart for an operator",
    )
    secure_aggregation: SecureAggregation | None = Field(
        default=None,
        exclude_if=is_unset,
        description="masks, under which the service learns the sum of a round's updates and no single one",
    )
    evaluation: EvaluationSettings | None = Field(
        default=None, description="when adapter versions are evaluated on examples that devices hold out"
    )
    stop: StopRules | None = Field(
        default=None, exclude_if=is_unset, description="what ends the run before its last round"
    )
    schedule: Schedule | None = Field(
        default=None, exclude_if=is_unset, description="when the run starts and stops by itself"
    )
    conditions: Conditions = Field(
        default=ANY_TIME, description="when devices may work; what their apps ask counts, too"
    )
    min_rank: PositiveCount = 1
    max_rank: PositiveCount
    seed: Count = 0
    training: TrainingSettings = TrainingSettings()
    variants: tuple[Sha256, ...] = Field(
        default=(),
        max_length=MAX_VARIANTS,
        exclude_if=is_empty,
        description="bundles of the same adapter at another cost, which devices may take in the place of the "
        "run's own; the one that is liked best first",
    )

    @model_validator(mode="after")
    def _prunes_by_default_with_its_rule_alone(self) -> Self:
        if not isinstance(self.rule, HetLoraRule):
            asked = self.training.model_fields_set
            missing = {name: value for name, value in UNPRUNED.items() if name not in asked}
            object.__setattr__(self, "training", self.training.model_copy(update=missing))
        return self

    @model_validator(mode="after")
    def _uses_what_it_holds(self) -> Self:
        check_all_used(self, "mode")
        return self

    @model_validator(mode="after")
    def _stops_by_what_it_has(self) -> Self:
        if self.stop is None:
            return self
        if self.stop.look_at_scores and self.evaluation is None:
            raise ValueError("stop looks at scores, and evaluation is not given")
        if self.stop.abandoned_rounds is not None and self.mode == "buffered":
            raise ValueError("stop.abandoned_rounds counts attempts at a round; a buffered run has one")
        return self

    @model_validator(mode="after")
    def _ranks_in_order(self) -> Self:
        if self.min_rank > self.max_rank:
            raise ValueError(f"min_rank {self.min_rank} is above max_rank {self.max_rank}")
        return self

    @model_validator(mode="after")
    def _names_each_variant_once(self) -> Self:
        if len(set(self.variants)) < len(self.variants):
            raise ValueError("variants are not unique")
        return self


class RunCreate(Message):
    """A new run of a bundle in a population, in state draft."""

    population: Name
    bundle: Sha256
    settings: RunSettings
    name: Name | None = Field(
        default=None, description="of one run in the population; asked for again as it was, it is that run"
    )
    cloned_from: Identifier | None = Field(default=None, description="the run whose settings these were")

    @property
    def meaning_sha256(self) -> str:
        """The hash of population, bundle and all settings, given or by default; not of name and origin.

        Over JSON with sorted keys.
        """
        meaning = self.model_dump(mode="json", exclude={"name", "cloned_from"})
        return sha256_of(json.dumps(meaning, sort_keys=True).encode())


class RunStatus(Message):
    """A run and how far it has come."""

    run_id: Identifier
    population: Name
    bundle: Sha256
    state: RunState
    reason: str
    settings: RunSettings
    rounds_committed: Integer
    adapter_version: Identifier | None  # the newest committed one
    created_at: Timestamp
    name: Name | None = None
    request_sha256: Sha256 | None = (
        None  # `RunCreate.meaning_sha256`; none of a run from before there was one
    )
    cloned_from: Identifier | None = None


class RoundStatus(Message):
    """One attempt at a round."""

    round_index: Integer
    attempt: Integer
    state: RoundState
    reason: str
    offered: Integer  # assignments alive or done
    accepted: Integer
    started_at: Timestamp
    ended_at: Timestamp | None


class AssignmentStatus(Message):
    """What one device was given in one round, and what it brought back."""

    assignment_id: Identifier
    device_id: Identifier
    device_name: str
    round_index: Integer
    attempt: Integer
    state: AssignmentState
    reason: str
    rank: Integer | None  # taken at the start
    variant: Sha256 | None = None  # that it was taken with; None: the run's own bundle
    updated_rank: Integer | None  # after self-pruning
    aggregation_weight: float | None
    staleness: Integer | None  # rounds that the run had closed since its adapter was sent, once accepted
    first_loss: float | None
    last_loss: float | None
    training_seconds: float | None
    peak_memory_bytes: Integer | None
    downloaded_bytes: Integer | None
    uploaded_bytes: Integer | None
    held_out_loss_before: float | None = None  # where the run asked, and the device holds something out
    held_out_loss_after: float | None = None


class AdapterVersionStatus(Message):
    """A committed global adapter."""

    version: Identifier
    run_id: Identifier
    round_index: Integer  # the round that made it; -1 for the initial adapter
    state: AdapterVersionState
    sha256: Sha256
    size_bytes: Integer
    update_count: Integer  # accepted updates merged into it
    frozen: ObjectRef | None = None  # a second adapter, of any rank, that belongs to the model beside it
    figures: dict[str, float] = Field(default_factory=dict)  # what rule and defence tell of the round
    evaluation: EvaluationStatus | None = None  # on devices, where it was due
    privacy: PrivacySpent | None = None  # by the population, with the round that made it
    created_at: Timestamp
