"""Evaluation tasks: evaluations of adapter versions, and the devices that have a part in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(), sa.ForeignKey("adapter_versions.id"), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("window_closes_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("figures", sa.JSON()),
    )
    op.create_index("ix_evaluations_run_id", "evaluations", ["run_id"])
    op.create_index("ix_evaluations_state_window", "evaluations", ["state", "window_closes_at"])
    op.create_table(
        "evaluation_assignments",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("evaluation_id", sa.String(), sa.ForeignKey("evaluations.id"), nullable=False),
        sa.Column("run_id", sa.String(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("device_id", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("max_rank", sa.Integer(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(), nullable=False),
        sa.Column("rank", sa.Integer()),
        sa.Column("adapter_sha256", sa.String()),
        sa.Column("report", sa.JSON()),
        sa.UniqueConstraint("evaluation_id", "device_id"),
    )
    for name, columns in (
        ("device_state", ["device_id", "state"]),
        ("state_lease", ["state", "lease_expires_at"]),
    ):
        op.create_index(f"ix_evaluation_assignments_{name}", "evaluation_assignments", columns)


def downgrade() -> None:
    op.drop_table("evaluation_assignments")
    op.drop_table("evaluations")
