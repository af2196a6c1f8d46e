"""Keys of operators, the record of what they did, and what their repeated requests made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _text(name: str, *, key: bool = False, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), primary_key=key, nullable=null)


def _time(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(), nullable=null)


def upgrade() -> None:
    op.create_table(
        "operator_keys",
        _text("id", key=True),
        _text("name"),
        sa.Column("role", sa.String(16), nullable=False),
        _text("secret_sha256"),
        _time("created_at"),
        _time("last_used_at", null=True),
        _time("revoked_at", null=True),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        _time("at"),
        _text("key_id"),
        _text("key_name"),
        _text("action"),
        _text("subject"),
        sa.Column("status", sa.Integer()),
        _text("request_id"),
        _text("source", null=True),
    )
    op.create_index("ix_audit_key", "audit", ["key_id"])
    op.create_index("ix_audit_subject", "audit", ["subject"])
    op.create_table(
        "repeats",
        _text("key_id", key=True),
        _text("idempotency_key", key=True),
        _text("request_sha256"),
        _text("salt"),
        _text("subject", null=True),
        _time("expires_at"),
    )
    op.create_index("ix_repeats_expires_at", "repeats", ["expires_at"])


def downgrade() -> None:
    for table in ("repeats", "audit", "operator_keys"):
        op.drop_table(table)
