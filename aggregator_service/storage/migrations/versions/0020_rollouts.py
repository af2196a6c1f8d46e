"""Labels of devices, groups, rollouts, and what these asked of devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("labels", sa.JSON()))
    _groups()
    _rollouts()
    _rollout_devices()


def _groups() -> None:
    op.create_table(
        "device_groups",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("filter", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("population", "name"),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), nullable=False),
        sa.Column("version", sa.String(), sa.ForeignKey("adapter_versions.id"), nullable=False),
        sa.Column("former", sa.String(), sa.ForeignKey("adapter_versions.id"), nullable=False),
        sa.Column("group_name", sa.String()),
        sa.Column("filter", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("asks", sa.Boolean(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("stage_began_at", sa.DateTime()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("decided", sa.JSON(), nullable=False),
    )
    op.create_index("ix_rollouts_population_asks", "rollouts", ["population", "asks"])
    op.create_index("ix_rollouts_state", "rollouts", ["state"])
    op.create_index("ix_rollouts_version", "rollouts", ["version"])


def _rollout_devices() -> None:
    op.create_table(
        "rollout_devices",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("rollout_id", sa.String(), sa.ForeignKey("rollouts.id"), nullable=False),
        sa.Column("device_id", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("max_rank", sa.Integer(), nullable=False),
        sa.Column("lease_expires_at", sa.DateTime(), nullable=False),
        sa.Column("waits_until", sa.DateTime()),
        sa.Column("rank", sa.Integer()),
        sa.Column("adapter_sha256", sa.String()),
        sa.Column("new_loss", sa.Double()),
        sa.Column("former_loss", sa.Double()),
        sa.UniqueConstraint("rollout_id", "device_id"),
    )
    for name, columns in (
        ("device_state", ["device_id", "state"]),
        ("rollout_state", ["rollout_id", "state", "stage"]),
        ("adapter_sha256", ["adapter_sha256"]),
    ):
        op.create_index(f"ix_rollout_devices_{name}", "rollout_devices", columns)


def downgrade() -> None:
    for table in ("rollout_devices", "rollouts", "device_groups"):
        op.drop_table(table)
    op.drop_column("devices", "labels")
