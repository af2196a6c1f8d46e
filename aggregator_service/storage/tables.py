"""The tables. States change only through `transitions.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aggregator_service.storage.columns import AbandonedFor, MessageJson, UtcDateTime, state_column, word
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Adaptation, CapabilityReport, Report
from hetlora.messages.fleet import AdmissionPolicy, Subject
from hetlora.messages.management import RunSettings
from hetlora.messages.operators import OperatorRole
from hetlora.states import AdapterVersionState, AssignmentState, DeviceState, RoundState, RunState

# PostgreSQL's own integers end at 2 GiB; SQLite's do not, and know no other name.
ByteCount = Annotated[int, "bytes"]
RowNumber = Annotated[int, "row"]


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime(),
        ByteCount: BigInteger().with_variant(Integer(), "sqlite"),
        RowNumber: BigInteger().with_variant(Integer(), "sqlite"),
        RunSettings: MessageJson(RunSettings),
        CapabilityReport: MessageJson(CapabilityReport),
        Report: MessageJson(Report),
        Adaptation: MessageJson(Adaptation),
        dict[str, float]: JSON(none_as_null=True),
        dict[str, str]: JSON(none_as_null=True),
        OperatorRole: word(OperatorRole),
        AbandonedFor: word(AbandonedFor),
    }


class StatefulRow(Base):
    """A row with a state machine; `reason` belongs to the newest state."""

    __abstract__ = True
    subject: ClassVar[Subject]

    id: Mapped[str] = mapped_column(primary_key=True, sort_order=-3)
    state: Mapped[Any]
    reason: Mapped[str] = mapped_column(sort_order=-1)


class PopulationRow(Base):
    __tablename__ = "populations"

    name: Mapped[str] = mapped_column(primary_key=True)
    enrolment_token_sha256: Mapped[str]
    created_at: Mapped[datetime]
    admission: Mapped[AdmissionPolicy] = mapped_column(String, default="token")
    token_expires_at: Mapped[datetime | None]


class DeviceRow(StatefulRow):
    __tablename__ = "devices"
    __table_args__ = (Index("ix_devices_state", "state"),)
    subject = "device"

    state: Mapped[DeviceState] = state_column(DeviceState)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), index=True)
    public_key: Mapped[str]  # the one in force; empty where it is preauthorized by its id alone
    name: Mapped[str]
    capabilities: Mapped[CapabilityReport | None]
    last_contact_at: Mapped[datetime | None]
    labels: Mapped[dict[str, str] | None]  # by operators


class ReplacedKeyRow(Base):
    """A public key that a device had before; none comes back."""

    __tablename__ = "replaced_keys"
    __table_args__ = (UniqueConstraint("device_id", "public_key"),)

    id: Mapped[RowNumber] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    public_key: Mapped[str]
    replaced_at: Mapped[datetime]


class BundleRow(Base):
    __tablename__ = "bundles"

    digest: Mapped[str] = mapped_column(primary_key=True)
    base_model: Mapped[str]
    task: Mapped[str]
    max_rank: Mapped[int]
    max_tokens: Mapped[int]
    manifest_bytes: Mapped[ByteCount]
    size_bytes: Mapped[ByteCount]


class RunRow(StatefulRow):
    __tablename__ = "runs"
    __table_args__ = (Index("ix_runs_population_name", "population", "name", unique=True),)
    subject = "run"

    state: Mapped[RunState] = state_column(RunState)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), index=True)
    bundle: Mapped[str] = mapped_column(ForeignKey("bundles.digest"))
    settings: Mapped[RunSettings]
    trained_rank: Mapped[int | None]  # of every device, where the rank taken counts what comes back
    rounds_committed: Mapped[int] = mapped_column(default=0)
    adapter_version: Mapped[str | None]  # the newest; the initial adapter before the first commit
    created_at: Mapped[datetime]
    name: Mapped[str | None]
    request_sha256: Mapped[str | None]  # of what was asked for
    cloned_from: Mapped[str | None]
    starts_at: Mapped[datetime | None] = mapped_column(index=True)  # of its schedule
    stops_at: Mapped[datetime | None] = mapped_column(index=True)


class RoundRow(StatefulRow):
    __tablename__ = "rounds"
    __table_args__ = (
        Index("ix_rounds_run_state", "run_id", "state"),
        Index("ix_rounds_run_index", "run_id", "round_index"),
        Index("ix_rounds_updates_dropped", "updates_dropped", "ended_at"),
    )
    subject = "round"

    state: Mapped[RoundState] = state_column(RoundState)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    round_index: Mapped[int]
    attempt: Mapped[int]
    # What the round is aggregated on; while it is open, the run's newest.
    base_version: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"))
    started_at: Mapped[datetime]
    window_closes_at: Mapped[datetime | None]  # set by the first offer
    ended_at: Mapped[datetime | None]
    claimed_by: Mapped[str | None]  # the worker that aggregates it, until it says so no more
    claimed_until: Mapped[datetime | None]
    updates_dropped: Mapped[bool] = mapped_column(default=False)  # from the store
    traceparent: Mapped[str | None]  # of the request that met the goal, where spans are made
    abandoned_for: Mapped[AbandonedFor | None]  # set when it is; the reason says it in words, for people
    fault_code: Mapped[str | None]  # of the error, where one in the aggregation was why
    unreadable_since: Mapped[datetime | None]  # one of its updates, which is looked for


class AssignmentRow(StatefulRow):
    __tablename__ = "assignments"
    __table_args__ = (
        Index("ix_assignments_round_state", "round_id", "state"),
        Index("ix_assignments_device_state", "device_id", "state", "adapter_sha256"),
        Index("ix_assignments_run_state_lease", "run_id", "state", "lease_expires_at"),
        Index("ix_assignments_state_lease", "state", "lease_expires_at"),
        Index("ix_assignments_offered_in", "offered_in"),
    )
    subject = "assignment"

    state: Mapped[AssignmentState] = state_column(AssignmentState)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id"))  # that it counts in
    # The round of its offer, whose folder has its update; in buffered runs the one above moves on from it.
    # Always set: nullable, as SQLite adds no other columns to a table that has rows.
    offered_in: Mapped[str] = mapped_column(nullable=True)
    base_version: Mapped[str] = mapped_column(nullable=True)  # what it is sent
    base_step: Mapped[int] = mapped_column(nullable=True)  # rounds that had committed when it was offered
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    max_rank: Mapped[int]  # as offered
    lease_expires_at: Mapped[datetime]
    rank: Mapped[int | None]  # taken at the start
    variant: Mapped[str | None]  # of the run's bundle, that it was taken with; None is that itself
    adapter_sha256: Mapped[str | None] = mapped_column(index=True)  # what was sent, with its adaptation
    adaptation: Mapped[Adaptation | None]
    update_sha256: Mapped[str | None]
    update_bytes: Mapped[ByteCount | None]
    updated_rank: Mapped[int | None]  # of the update, after self-pruning
    report: Mapped[Report | None]
    staleness: Mapped[int | None]  # of an accepted update: rounds that committed since its offer
    aggregation_weight: Mapped[float | None] = mapped_column(Double)


class AdapterVersionRow(StatefulRow):
    __tablename__ = "adapter_versions"
    subject = "adapter_version"

    state: Mapped[AdapterVersionState] = state_column(AdapterVersionState)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    round_index: Mapped[int]
    sha256: Mapped[str] = mapped_column(index=True)
    size_bytes: Mapped[ByteCount]
    frozen_sha256: Mapped[str | None] = mapped_column(index=True)  # added to the model beside the adapter
    frozen_bytes: Mapped[ByteCount | None]
    # The rule's whole state, where the adapter is not all of it.
    state_sha256: Mapped[str | None] = mapped_column(index=True)
    figures: Mapped[dict[str, float] | None]
    update_count: Mapped[int]
    created_at: Mapped[datetime]


class HandoutRow(Base):
    """What every device is sent that takes a version at a rank, made when the first one did."""

    __tablename__ = "handouts"

    version: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str]  # of the adapter
    size_bytes: Mapped[ByteCount]
    frozen_sha256: Mapped[str | None]
    frozen_bytes: Mapped[ByteCount | None]
    adaptation: Mapped[Adaptation | None]  # None: a plain one


def frozen_of(row: AdapterVersionRow | HandoutRow) -> ObjectRef | None:
    """The frozen adapter of a row, if it has one."""
    if row.frozen_sha256 is None or row.frozen_bytes is None:
        return None
    return ObjectRef(sha256=row.frozen_sha256, size_bytes=row.frozen_bytes)


class ObjectRow(Base):
    """When an object was last put, somebody was about to refer to it, or found it referred to."""

    __tablename__ = "objects"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    touched_at: Mapped[datetime] = mapped_column(index=True)


class CheckpointRow(Base):
    """How far the reduction of a round came; gone when the round ends (ADR 0006)."""

    __tablename__ = "checkpoints"

    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    leaf_count: Mapped[int] = mapped_column(primary_key=True)
    inputs_sha256: Mapped[str]  # of all that it follows from
    sha256: Mapped[str]  # of the object that holds it


class UploadRow(Base):
    """An update that comes in parts, as its device promised it; it expires with the lease."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"), index=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    sha256: Mapped[str]
    length_bytes: Mapped[ByteCount]
    completed: Mapped[bool]  # the update is in, and its parts are needed no more


class UploadPartRow(Base):
    """A part of an upload that is in the store. The parts of an upload have no gaps between them."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    offset_bytes: Mapped[ByteCount] = mapped_column(primary_key=True)
    size_bytes: Mapped[ByteCount]
    sha256: Mapped[str]


class RankLimitRow(Base):
    """The rank that self-pruning left a device in a run."""

    __tablename__ = "rank_limits"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    max_rank: Mapped[int]


class NonceRow(Base):
    """A nonce seen; kept until its signature is too old to be accepted again, whatever time was signed."""

    __tablename__ = "nonces"

    device_id: Mapped[str] = mapped_column(primary_key=True)
    nonce: Mapped[str] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class TransitionRow(Base):
    __tablename__ = "transitions"
    __table_args__ = (Index("ix_transitions_subject", "subject", "subject_id"),)

    id: Mapped[RowNumber] = mapped_column(primary_key=True)
    subject: Mapped[str]
    subject_id: Mapped[str]
    old: Mapped[str | None]
    new: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]
