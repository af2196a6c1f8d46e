"""The tables of the registry (ADR 0036). What a version came from has none: runs and rounds tell it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.tables import Base, RowNumber


class AliasRow(Base):
    """Where an alias points now; a removed one has no row."""

    __tablename__ = "aliases"

    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"), index=True)
    reason: Mapped[str]
    key_id: Mapped[str]  # also of the key that no table holds
    key_name: Mapped[str]
    at: Mapped[datetime]


class AliasChangeRow(Base):
    """One write of an alias; never changed afterwards."""

    __tablename__ = "alias_changes"
    __table_args__ = (Index("ix_alias_changes_alias", "population", "alias"),)

    id: Mapped[RowNumber] = mapped_column(primary_key=True)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"))
    alias: Mapped[str]
    old: Mapped[str | None]
    new: Mapped[str | None]
    reason: Mapped[str]
    key_id: Mapped[str]
    key_name: Mapped[str]
    at: Mapped[datetime]


class VersionNoteRow(Base):
    """What an operator wrote about a version; never changed afterwards."""

    __tablename__ = "version_notes"

    id: Mapped[RowNumber] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(ForeignKey("adapter_versions.id"), index=True)
    text: Mapped[str]
    key_id: Mapped[str]
    key_name: Mapped[str]
    at: Mapped[datetime]


class SigningKeyRow(Base):
    """The public half of a key that signed manifests; the other half is a file (`registry/signing.py`)."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the 32 bytes of the public key
    public_key: Mapped[str]
    first_used_at: Mapped[datetime]
