"""Updates that screens took out of rounds, and when that suspends a device."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quarantines",
        sa.Column("id", sa.String(), sa.ForeignKey("assignments.id"), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("device_id", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("quarantined_at", sa.DateTime(), nullable=False),
        sa.Column("screen", sa.String(), nullable=False),
        sa.Column("finding", sa.String(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dropped", sa.Boolean(), nullable=False),
        sa.Column("judged", sa.Boolean(), nullable=False),
    )
    for name, columns in (
        ("run", ["run_id", "id"]),
        ("device", ["device_id", "id"]),
        ("state", ["state", "id"]),
        ("judged", ["judged"]),
        ("dropped", ["dropped", "quarantined_at"]),
    ):
        op.create_index(f"ix_quarantines_{name}", "quarantines", columns)
    op.create_table(
        "screen_passes",
        sa.Column("assignment_id", sa.String(), sa.ForeignKey("assignments.id"), primary_key=True),
    )
    op.create_table(
        "suspension_rules",
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), primary_key=True),
        sa.Column("quarantines", sa.Integer(), nullable=False),
        sa.Column("within_updates", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("suspension_rules")
    op.drop_table("screen_passes")
    op.drop_table("quarantines")
