"""The tables of operators: what they may do, what they did, and what they asked for before."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from aggregator_service.storage.tables import Base
from hetlora.messages.operators import OperatorRole


class OperatorTokenRow(Base):
    """The hash of the generated operator token; at most one row."""

    __tablename__ = "operator_tokens"

    sha256: Mapped[str] = mapped_column(primary_key=True)


class OperatorKeyRow(Base):
    __tablename__ = "operator_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[OperatorRole]
    secret_sha256: Mapped[str]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]  # to the hour
    revoked_at: Mapped[datetime | None]


class AuditRow(Base):
    """One write that an operator asked for; never its body, nor a secret."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_key", "key_id"), Index("ix_audit_subject", "subject"))

    # SQLite counts by itself in a plain INTEGER alone.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at: Mapped[datetime]
    key_id: Mapped[str]  # also of the key that no table holds
    key_name: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    status: Mapped[int | None]  # of the answer, once there is one
    request_id: Mapped[str]
    source: Mapped[str | None]


class RepeatRow(Base):
    """What a request with an `Idempotency-Key` made, for a day."""

    __tablename__ = "repeats"

    key_id: Mapped[str] = mapped_column(primary_key=True)  # the operator's
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    salt: Mapped[str]  # of the secret that was shown
    subject: Mapped[str | None]  # set before the transaction ends
    expires_at: Mapped[datetime] = mapped_column(index=True)
