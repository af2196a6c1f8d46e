"""Uploads that come in parts; sizes beyond 2 GiB, which PostgreSQL refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SIZES = {
    "bundles": ("manifest_bytes", "size_bytes"),
    "assignments": ("update_bytes",),
    "adapter_versions": ("size_bytes", "frozen_bytes"),
    "handouts": ("size_bytes", "frozen_bytes"),
}
# SQLite's integers have 64 bits under any name.
ByteCount = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("assignment_id", sa.String(), sa.ForeignKey("assignments.id"), nullable=False),
        sa.Column("device_id", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("length_bytes", ByteCount, nullable=False),
        sa.Column("completed", sa.Boolean(), nullable=False),
    )
    for column in ("assignment_id", "device_id"):
        op.create_index(f"ix_uploads_{column}", "uploads", [column])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(), sa.ForeignKey("uploads.id"), primary_key=True),
        sa.Column("offset_bytes", ByteCount, primary_key=True, autoincrement=False),
        sa.Column("size_bytes", ByteCount, nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
    )
    _change_sizes(sa.BigInteger())


def _change_sizes(kind: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name != "sqlite":
        for table, columns in SIZES.items():
            for column in columns:
                op.alter_column(table, column, type_=kind)


def downgrade() -> None:
    _change_sizes(sa.Integer())
    op.drop_table("upload_parts")
    op.drop_table("uploads")
