"""The tables of groups and rollouts (ADR 0037). States change only through `transitions.py`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Double, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.columns import MessageJson, state_column
from aggregator_service.storage.tables import Base, StatefulRow
from hetlora.messages.rollouts import DeviceFilter, RolloutSettings, StagesDecided
from hetlora.states import RolloutDeviceState, RolloutState


class GroupRow(Base):
    __tablename__ = "device_groups"
    __table_args__ = (UniqueConstraint("population", "name"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"))
    name: Mapped[str]
    filter: Mapped[DeviceFilter] = mapped_column(MessageJson(DeviceFilter))
    created_at: Mapped[datetime]


class RolloutRow(StatefulRow):
    """An adapter version on its way to the devices that its filter, a copy of a group's, holds for."""

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("ix_rollouts_population_asks", "population", "asks"),
        Index("ix_rollouts_state", "state"),
        Index("ix_rollouts_version", "version"),
    )
    subject = "rollout"

    state: Mapped[RolloutState] = state_column(RolloutState)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"))
    version: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"))
    former: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"))
    group_name: Mapped[str | None]
    filter: Mapped[DeviceFilter] = mapped_column(MessageJson(DeviceFilter))
    settings: Mapped[RolloutSettings] = mapped_column(MessageJson(RolloutSettings))
    # Whether other devices are asked: while it runs, and once completed until another takes over.
    asks: Mapped[bool]
    stage: Mapped[int]  # from 0
    stage_began_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    decided: Mapped[StagesDecided] = mapped_column(MessageJson(StagesDecided))


class RolloutDeviceRow(StatefulRow):
    """What a rollout asked of one device; it asks each once."""

    __tablename__ = "rollout_devices"
    __table_args__ = (
        UniqueConstraint("rollout_id", "device_id"),
        Index("ix_rollout_devices_device_state", "device_id", "state"),
        Index("ix_rollout_devices_rollout_state", "rollout_id", "state", "stage"),
        Index("ix_rollout_devices_adapter_sha256", "adapter_sha256"),
    )
    subject = "rollout_device"

    state: Mapped[RolloutDeviceState] = state_column(RolloutDeviceState)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stage: Mapped[int]  # that asked it
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))  # of the version that it was sent last
    max_rank: Mapped[int]  # as offered
    lease_expires_at: Mapped[datetime]
    waits_until: Mapped[datetime | None]  # before it is asked again for what it failed at
    rank: Mapped[int | None]  # taken at the start
    adapter_sha256: Mapped[str | None]  # what was sent last
    # Until its stage is decided, whose figures take them in.
    new_loss: Mapped[float | None] = mapped_column(Double)
    former_loss: Mapped[float | None] = mapped_column(Double)
